//! Panics of simulated tasks: kept as verdict material, not printed.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static IN_WORLD: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on this thread's panics are kept.
pub(super) fn keep_on_this_thread() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IN_WORLD.get() {
                return before(info);
            }
            let text = info
                .payload()
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| info.payload().downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a value that is no text".to_owned());
            let place = info.location().map(|at| format!(" at {at}")).unwrap_or_default();
            // The first panic is the cause; those in destructors after it are not.
            let _ = MESSAGE.try_with(|message| {
                message.borrow_mut().get_or_insert(format!("{text}{place}"));
            });
        }));
    });
    IN_WORLD.set(true);
}

pub(super) fn take_message() -> String {
    MESSAGE.with_borrow_mut(Option::take).unwrap_or_else(|| "panicked".to_owned())
}
