//! Running a world: its thread, its driver of time, its end.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use super::guard::Patience;
use super::handle::World;
use super::kernel::Kernel;
use super::outcome::{Options, Outcome, Stop};
use super::{getrandom, logs, panics, runner, task};

/// How long madsim's clock sleeps until it notices that nothing can run. Any length would do that is
/// longer than its clock advances by polls alone.
const IDLE: Duration = Duration::from_secs(60);

/// How often the guard looks.
const LOOK: Duration = Duration::from_millis(50);

impl World {
    /// Runs `main` in a kernel of this seed, on a thread of its own, and waits for its end. Equal seeds,
    /// options and futures give equal outcomes.
    pub fn run<T, M, F>(seed: u64, options: Options, main: M) -> Outcome<T>
    where
        T: Send + 'static,
        M: FnOnce(World) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        io_backend::invariants::check();
        let kernel = Kernel::new(seed, options);
        let world = World::new(&kernel);
        let (sender, receiver) = channel();
        let inside = world.clone();
        let spawned =
            std::thread::Builder::new().name(format!("seed {seed}")).stack_size(16 << 20).spawn(move || {
                let _ = sender.send(live(&inside, main));
            });
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                return outcome(&world, Err(Stop::Main(format!("no thread for the world: {error}"))));
            }
        };
        let mut last = None;
        let mut stands_still = Duration::ZERO;
        let mut waited = Duration::ZERO;
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(result) => {
                    let _ = thread.join();
                    return outcome(&world, result);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return outcome(&world, Err(Stop::Main("the world's thread died".to_owned())));
                }
                Err(RecvTimeoutError::Timeout) => waited += LOOK,
            }
            kernel.guard.set_patience(patience(waited, kernel.options.wall_time_max));
            let polling = kernel.guard.polling();
            stands_still =
                if polling.is_some() && polling == last { stands_still + LOOK } else { Duration::ZERO };
            last = polling;
            if let Some((task, _)) = polling
                && stands_still >= kernel.options.wall_guard
            {
                explain_from_outside(&kernel);
                kernel.guard.condemn();
                return outcome(&world, Err(Stop::NeverYields { task: kernel.guard.name_of(task) }));
            }
        }
    }
}

fn patience(waited: Duration, most: Duration) -> Patience {
    if waited >= most {
        Patience::Lost
    } else if waited >= most / 10 * 9 {
        Patience::Low
    } else {
        Patience::Whole
    }
}

/// The world's thread is in a poll that does not come back, and may hold a lock that this looks behind.
fn explain_from_outside(kernel: &Arc<Kernel>) {
    let (sender, receiver) = channel();
    let inside = kernel.clone();
    let looking = std::thread::Builder::new().name("explain".into()).spawn(move || {
        inside.explain_the_stop();
        let _ = sender.send(());
    });
    if looking.is_ok() {
        let _ = receiver.recv_timeout(Duration::from_secs(2));
    }
}

fn outcome<T>(world: &World, result: Result<T, Stop>) -> Outcome<T> {
    let kernel = &world.kernel;
    let result = result.map_err(|stop| match stop {
        Stop::Busy { polls, .. } => {
            let last = || kernel.guard.name_of(kernel.guard.last_task());
            Stop::Busy { task: kernel.busiest().unwrap_or_else(last), polls }
        }
        other => other,
    });
    Outcome {
        result,
        trace_hash: kernel.with_trace(|trace| trace.hash()),
        digests: kernel.with_trace(|trace| trace.digests().to_vec()),
        events: kernel.with_trace(|trace| trace.count()),
        events_by_class: kernel.with_trace(|trace| trace.counts_by_class()),
        polls: kernel.guard.polls(),
        simulated: kernel.elapsed(),
        fault_hits: kernel.with_faults(|faults| faults.hits()),
        probes: kernel.probes(),
        endings: world.machines.endings(),
        last_events: kernel.with_trace(|trace| trace.kept()),
        marked: kernel.marked(),
        explanation: kernel.stop_explanation(),
    }
}

fn live<T, M, F>(world: &World, main: M) -> Result<T, Stop>
where
    M: FnOnce(World) -> F,
    F: Future<Output = T> + 'static,
    T: 'static,
{
    let kernel = &world.kernel;
    panics::keep_on_this_thread();
    getrandom::seed_this_thread(kernel.seed);
    logs::show_time_of(Some(kernel.clone()));
    let runtime = madsim::runtime::Runtime::with_seed_and_config(kernel.seed, madsim::Config::default());
    let lived = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            runner::found();
            drop(madsim::task::spawn(drive(Arc::downgrade(kernel))));
            let result = until_over(kernel, main(world.clone())).await;
            // What destructors do now belongs to no run any more.
            kernel.close();
            task::clear_table();
            result
        })
    }));
    kernel.close();
    task::clear_table();
    runner::leave();
    world.dissolve();
    drop(runtime);
    logs::show_time_of(None);
    lived.unwrap_or_else(|_| Err(Stop::Main(panics::take_message())))
}

/// The main future, or the reason that ended the world before it was done.
async fn until_over<T>(kernel: &Arc<Kernel>, main: impl Future<Output = T>) -> Result<T, Stop> {
    let mut main = pin!(main);
    poll_fn(|cx| {
        kernel.set_root(cx.waker());
        if let Some(stop) = kernel.stopped() {
            return Poll::Ready(Err(stop));
        }
        main.as_mut().poll(cx).map(Ok)
    })
    .await
}

/// Moves time on whenever nothing can run. Holds the kernel weakly: the executor forgets no task that still sleeps.
async fn drive(kernel: Weak<Kernel>) {
    loop {
        madsim::time::sleep(IDLE).await;
        let Some(kernel) = kernel.upgrade().filter(|kernel| !kernel.is_over()) else {
            return;
        };
        let limit = crate::fault::duration::nanos(kernel.options.time_limit);
        if !kernel.jump() {
            kernel.stop_with(Stop::NothingLeft);
        } else if kernel.now() > limit {
            kernel.stop_with(Stop::OutOfTime);
        }
    }
}
