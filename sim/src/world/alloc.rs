//! Memory by process: a global allocator that knows on whose account each allocation is.
//!
//! A thread-local says whose account is current: a process's while one of its tasks is polled, none while the world
//! itself works. Each allocation carries its account in a header, so that whoever frees it, the right one is credited.
//! Counting changes nothing in the course of a run, and nothing that is traced depends on it.
//!
//! What a process hands to its kernel is not its own any more: the page cache and the network copy it on the
//! world's account, and what is read comes back on the process's. Accounts belong to the thread that opened them,
//! which is the thread of one world; other threads allocate on no account.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: ByAccount = ByAccount;

/// Accounts that a thread keeps at a time; an older one that is still used is counted no more.
const ACCOUNTS: usize = 256;
/// Bytes before each allocation; more where the alignment asks for it.
const HEADER: usize = 16;
/// Where in the header the account stands, counted from its end.
const BEFORE: usize = 8;

/// Number of an account on its thread. None of them is the world's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account(u32);

pub const WORLD: Account = Account(0);

struct Tally {
    account: Cell<u32>,
    bytes: Cell<u64>,
    peak: Cell<u64>,
}

impl Tally {
    const fn new() -> Tally {
        Tally { account: Cell::new(0), bytes: Cell::new(0), peak: Cell::new(0) }
    }
}

thread_local! {
    static CURRENT: Cell<u32> = const { Cell::new(0) };
    static OPENED: Cell<u32> = const { Cell::new(0) };
    static TALLIES: [Tally; ACCOUNTS] = const { [const { Tally::new() }; ACCOUNTS] };
}

fn with_tally(account: u32, change: impl FnOnce(&Tally)) {
    if account == 0 {
        return;
    }
    TALLIES.with(|tallies| {
        let tally = &tallies[account as usize % ACCOUNTS];
        if tally.account.get() == account {
            change(tally);
        }
    });
}

fn charge(account: u32, bytes: usize) {
    with_tally(account, |tally| {
        let now = tally.bytes.get() + bytes as u64;
        tally.bytes.set(now);
        tally.peak.set(tally.peak.get().max(now));
    });
}

fn credit(account: u32, bytes: usize) {
    with_tally(account, |tally| tally.bytes.set(tally.bytes.get().saturating_sub(bytes as u64)));
}

/// A new account of this thread.
pub fn open_account() -> Account {
    let number = OPENED.get().wrapping_add(1).max(1);
    OPENED.set(number);
    TALLIES.with(|tallies| {
        let tally = &tallies[number as usize % ACCOUNTS];
        tally.account.set(number);
        tally.bytes.set(0);
        tally.peak.set(0);
    });
    Account(number)
}

/// Bytes allocated on the account now, and at most so far.
pub fn balance(account: Account) -> (u64, u64) {
    let mut balance = (0, 0);
    with_tally(account.0, |tally| balance = (tally.bytes.get(), tally.peak.get()));
    balance
}

/// Makes an account the current one until the guard is dropped.
pub fn charge_to(account: Account) -> Charging {
    Charging(CURRENT.replace(account.0))
}

/// What the world allocates for itself, be it in the middle of a process's poll.
pub fn as_world() -> Charging {
    charge_to(WORLD)
}

#[must_use = "the account is current only as long as the guard lives"]
pub struct Charging(u32);

impl Drop for Charging {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

struct ByAccount;

/// The layout with its header in front, and the header's length.
fn with_header(layout: Layout) -> Option<(Layout, usize)> {
    let header = layout.align().max(HEADER);
    let size = layout.size().checked_add(header)?;
    Some((Layout::from_size_align(size, header).ok()?, header))
}

/// SAFETY: `block` starts an allocation that is longer than its header.
unsafe fn open(block: *mut u8, header: usize, bytes: usize) -> *mut u8 {
    if block.is_null() {
        return block;
    }
    let account = CURRENT.get();
    charge(account, bytes);
    // SAFETY: the header lies in the allocation, and its length is a multiple of 8.
    unsafe {
        let data = block.add(header);
        data.sub(BEFORE).cast::<u32>().write(account);
        data
    }
}

// SAFETY: every block is mimalloc's, moved by a header that keeps the alignment and is taken off again.
unsafe impl GlobalAlloc for ByAccount {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match with_header(layout) {
            // SAFETY: the size is not zero, it has a header.
            Some((whole, header)) => unsafe { open(MiMalloc.alloc(whole), header, layout.size()) },
            None => std::ptr::null_mut(),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match with_header(layout) {
            // SAFETY: as in `alloc`.
            Some((whole, header)) => unsafe { open(MiMalloc.alloc_zeroed(whole), header, layout.size()) },
            None => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        let Some((whole, header)) = with_header(layout) else { return };
        // SAFETY: `alloc` gave out `data` for this layout, so the header is in front of it.
        unsafe {
            credit(data.sub(BEFORE).cast::<u32>().read(), layout.size());
            MiMalloc.dealloc(data.sub(header), whole);
        }
    }

    unsafe fn realloc(&self, data: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return std::ptr::null_mut();
        };
        let (Some((old, header)), Some((new, _))) = (with_header(layout), with_header(wanted)) else {
            return std::ptr::null_mut();
        };
        // SAFETY: the block is mimalloc's with this layout; the header moves along with it.
        unsafe {
            let account = data.sub(BEFORE).cast::<u32>().read();
            let block = MiMalloc.realloc(data.sub(header), old, new.size());
            if block.is_null() {
                return block;
            }
            credit(account, layout.size());
            charge(account, size);
            block.add(header)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_frees_it_the_account_that_paid_is_credited() {
        let (one, two) = (open_account(), open_account());
        let held = {
            let _one = charge_to(one);
            vec![0u8; 1_000]
        };
        assert_eq!((balance(one), balance(two)), ((1_000, 1_000), (0, 0)));
        let _two = charge_to(two);
        drop(held);
        assert_eq!((balance(one), balance(two)), ((0, 1_000), (0, 0)));
    }

    #[test]
    fn what_grows_stays_on_its_account_and_the_world_pays_for_itself() {
        let account = open_account();
        let mut held: Vec<u8> = {
            let _own = charge_to(account);
            let _world = as_world();
            drop(vec![0u8; 5_000]);
            drop(_world);
            Vec::with_capacity(100)
        };
        held.reserve_exact(3_000);
        assert_eq!(balance(account), (3_000, 3_000));
        held.shrink_to(100);
        assert_eq!(balance(account).0, 100);
    }

    #[test]
    fn alignment_is_kept() {
        #[repr(align(4096))]
        struct Page([u8; 4096]);
        for _ in 0..10 {
            let page = Box::new(Page([7; 4096]));
            assert_eq!((std::ptr::from_ref(&*page).addr() % 4096, page.0[4095]), (0, 7));
        }
    }

    #[test]
    fn an_account_that_was_overtaken_is_counted_no_more() {
        let old = open_account();
        for _ in 0..ACCOUNTS {
            open_account();
        }
        let _old = charge_to(old);
        drop(vec![0u8; 10]);
        assert_eq!(balance(old), (0, 0));
    }
}
