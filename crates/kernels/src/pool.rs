//! One compute pool for the process: scoped parallel loops in which the caller takes part.
//!
//! The number of threads is `PELLUCID_THREADS`, else what the machine offers. Workers spin for a moment after each
//! loop, then give way to others for another, and then park. A loop started while another runs (from inside a chunk, or
//! from another thread) runs on its own thread alone: never a deadlock, never more compute threads than asked for by one
//! loop. Which thread runs a chunk is not determined, so a chunk's result must not depend on it; no kernel's does.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;

use crate::isa::Isa;

/// Pauses that a worker, or a caller that waits for one, spends before it offers the processor to whoever else is ready.
const SPINS: u32 = 2_000;
/// How often a worker then offers it before it parks. Where nobody else is ready it has it back at once; where somebody is, what it
/// waits for is not held up by its waiting.
const OFFERS: u32 = 400;
/// More threads than this are never started, whatever is asked for.
const MAX_THREADS: usize = 256;

thread_local! {
    static LIMIT: Cell<Option<usize>> = const { Cell::new(None) };
    static STOP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// The number of threads a loop started here may use, the caller included: that of the innermost [`with_threads`],
/// else `PELLUCID_THREADS` (read once), else what the machine offers.
pub fn threads() -> usize {
    LIMIT.get().unwrap_or_else(|| {
        static DEFAULT: OnceLock<usize> = OnceLock::new();
        *DEFAULT.get_or_init(|| {
            let asked = std::env::var("PELLUCID_THREADS").ok().and_then(|text| text.parse::<usize>().ok());
            let offered = || std::thread::available_parallelism().map_or(1, usize::from);
            asked.filter(|count| *count > 0).unwrap_or_else(offered).min(MAX_THREADS)
        })
    })
}

/// Runs `body` with `count` threads (at least one) for the loops it starts.
pub fn with_threads<R>(count: usize, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<usize>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }
    let _restore = Restore(LIMIT.replace(Some(count.clamp(1, MAX_THREADS))));
    body()
}

/// What [`stoppable`] gives where it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Runs `body`; once `stop` is set, it ends before the next chunk of a loop that it runs, or at its next [`checkpoint`], by
/// unwinding: what it was about to make is lost. The innermost `stop` counts.
///
/// # Errors
/// Where it was stopped.
pub fn stoppable<R>(stop: &Arc<AtomicBool>, body: impl FnOnce() -> R) -> Result<R, Stopped> {
    struct Restore(Option<Arc<AtomicBool>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            STOP.replace(self.0.take());
        }
    }
    let _restore = Restore(STOP.replace(Some(Arc::clone(stop))));
    // What is left half done is `body`'s own, as with any panic.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(done) => Ok(done),
        Err(payload) if payload.is::<Stopped>() => Err(Stopped),
        Err(payload) => resume_unwind(payload),
    }
}

/// Where a long computation of this thread can be stopped; see [`stoppable`].
pub fn checkpoint() {
    if STOP.with_borrow(|stop| stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))) {
        resume_unwind(Box::new(Stopped));
    }
}

/// Calls `chunk(0)`, `chunk(1)`, … `chunk(chunks - 1)`, each once, on several threads, and returns when all are done.
///
/// # Panics
/// With the first panic of a chunk; the chunks not begun by then are left out, and the pool goes on.
pub fn parallel(chunks: usize, chunk: impl Fn(usize) + Sync) {
    let threads = threads().min(chunks);
    let serial = || {
        (0..chunks).for_each(|index| {
            checkpoint();
            chunk(index);
        });
    };
    if threads <= 1 {
        return serial();
    }
    let pool = pool();
    let Some(_running) = Running::begin(pool) else { return serial() };
    pool.ensure_workers(threads - 1);
    pool.run(threads - 1, chunks, &chunk);
}

/// Calls `chunk(index, part)` for the consecutive parts of `length` elements of `data` (the last may be shorter), on
/// several threads.
///
/// # Panics
/// As [`parallel`]; and if `length` is zero.
pub fn parallel_chunks<T: Send>(data: &mut [T], length: usize, chunk: impl Fn(usize, &mut [T]) + Sync) {
    assert!(length > 0, "a chunk of a slice needs a length above zero");
    let total = data.len();
    let base = Shared(data.as_mut_ptr());
    parallel(total.div_ceil(length), |index| {
        let start = index * length;
        // SAFETY: the parts of different chunks do not overlap, each lies within `data`, each index comes once, and
        // `data` is exclusively borrowed until `parallel` returns.
        let part =
            unsafe { std::slice::from_raw_parts_mut(base.get().add(start), length.min(total - start)) };
        chunk(index, part);
    });
}

/// A pointer that chunks share. Whoever writes through it must keep the chunks' parts apart.
pub(crate) struct Shared<T>(pub(crate) *mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: the pointer is only a number here; every dereference is an unsafe block with its own argument.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// By method, so that closures capture the wrapper and not its field.
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

/// What the workers of one loop share. It lives on the caller's stack behind a raw pointer.
struct Job {
    chunk: *const (dyn Fn(usize) + Sync),
    chunks: usize,
    next: AtomicUsize,
    isa: Isa,
    stop: Option<Arc<AtomicBool>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job {
    /// Takes chunks until none is left.
    fn work(&self) {
        // SAFETY: the caller of `Pool::run` keeps the closure alive until every worker that joined has left.
        let chunk = unsafe { &*self.chunk };
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                if index >= self.chunks {
                    break;
                }
                if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                    resume_unwind(Box::new(Stopped));
                }
                chunk(index);
            }
        }));
        if let Err(payload) = result {
            self.next.store(self.chunks, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }
}

struct Worker {
    thread: Thread,
    parked: Arc<AtomicBool>,
}

/// The state word: the loop's number, whether it takes more workers, how many it still takes, how many are in it.
struct Pool {
    state: AtomicU64,
    job: UnsafeCell<*const Job>,
    busy: AtomicBool,
    workers: Mutex<Vec<Worker>>,
}

// SAFETY: `job` is written only by the thread that holds `busy`, while the state word admits no worker and none is in
// the loop; workers read it only after they joined through the state word.
unsafe impl Sync for Pool {}

/// Workers now in the loop: the state word's low 16 bits.
const JOINED: u64 = 1;
const JOINED_MASK: u64 = 0xffff;
/// Places left for workers: the next 16 bits.
const PLACE: u64 = 1 << 16;
const PLACE_MASK: u64 = 0xffff << 16;
/// The loop's number: the high half. A worker joins a loop at most once.
const LOOP: u64 = 1 << 32;

/// The process's first pool.
static FIRST: Pool = Pool::new();
/// The pool in use: the first, or in a process that was forked off one of its own.
static POOL: AtomicPtr<Pool> = AtomicPtr::new((&raw const FIRST).cast_mut());

fn pool() -> &'static Pool {
    // SAFETY: it is never null, and points to a static or to what was leaked for good.
    unsafe { &*POOL.load(Ordering::Acquire) }
}

/// To be called in a process that was forked off, before it computes: the workers are threads of its parent, so a new
/// pool begins without any. What the old one held stays where it is.
pub fn forked() {
    POOL.store(Box::leak(Box::new(Pool::new())), Ordering::Release);
}

/// The right to start a loop: at most one at a time.
struct Running(&'static Pool);

impl Running {
    fn begin(pool: &'static Pool) -> Option<Self> {
        pool.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Self(pool))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

impl Pool {
    const fn new() -> Pool {
        Pool {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(std::ptr::null()),
            busy: AtomicBool::new(false),
            workers: Mutex::new(Vec::new()),
        }
    }

    fn ensure_workers(&'static self, count: usize) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        while workers.len() < count {
            let parked = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&parked);
            let name = format!("pellucid-compute-{}", workers.len() + 1);
            let spawned = std::thread::Builder::new().name(name).spawn(move || self.worker(&flag));
            // A thread that cannot be had costs speed only: the caller does all the work there is.
            let Ok(handle) = spawned else { return };
            workers.push(Worker { thread: handle.thread().clone(), parked });
        }
    }

    /// Runs one loop with at most `places` workers beside the caller. The caller holds [`Running`].
    fn run(&self, places: usize, chunks: usize, chunk: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime is erased; `work` is done with the closure before this function returns.
        let chunk: *const (dyn Fn(usize) + Sync) =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(chunk) };
        let job = Job {
            chunk,
            chunks,
            next: AtomicUsize::new(0),
            isa: Isa::current(),
            stop: STOP.with_borrow(Clone::clone),
            panic: Mutex::new(None),
        };
        // SAFETY: `Running` is held, the last loop left no places and no workers inside (see below).
        unsafe { *self.job.get() = &raw const job };
        let number = (self.state.load(Ordering::Relaxed) >> 32).wrapping_add(1) & 0xffff_ffff;
        self.state.store(number * LOOP + places as u64 * PLACE, Ordering::SeqCst);
        {
            let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            for worker in workers.iter().take(places) {
                if worker.parked.swap(false, Ordering::SeqCst) {
                    worker.thread.unpark();
                }
            }
        }
        job.work();
        // No more workers in; then wait for those that are.
        self.state.fetch_and(!PLACE_MASK, Ordering::AcqRel);
        let mut spins = 0;
        while self.state.load(Ordering::Acquire) & JOINED_MASK != 0 {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        let panic = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    fn worker(&self, parked: &AtomicBool) {
        let mut last = 0;
        let mut spins = 0;
        loop {
            let state = self.state.load(Ordering::SeqCst);
            let number = state >> 32;
            if number != last && state & PLACE_MASK != 0 {
                let joined = state - PLACE + JOINED;
                if self.state.compare_exchange(state, joined, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    // SAFETY: joining keeps the caller in `run`, where the job lives, until this thread leaves.
                    let job = unsafe { &**self.job.get() };
                    // A chunk that starts a loop of its own finds the pool busy and runs it alone; its kernels find
                    // the caller's instruction set.
                    job.isa.scope(|| job.work());
                    self.state.fetch_sub(JOINED, Ordering::AcqRel);
                    last = number;
                    spins = 0;
                }
                continue;
            }
            if spins < SPINS + OFFERS {
                if spins < SPINS {
                    std::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
                spins += 1;
                continue;
            }
            // Say so before the last look: a caller that posts a loop after that look sees the flag and wakes us.
            parked.store(true, Ordering::SeqCst);
            let state = self.state.load(Ordering::SeqCst);
            if state >> 32 == last || state & PLACE_MASK == 0 {
                std::thread::park();
            }
            parked.store(false, Ordering::SeqCst);
            spins = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_chunk_runs_once_for_any_number_of_threads_and_chunks() {
        for threads in [1, 2, 3, 8] {
            with_threads(threads, || {
                for chunks in [0, 1, 2, 7, 100] {
                    for _ in 0..50 {
                        let counts: Vec<AtomicU32> = (0..chunks).map(|_| AtomicU32::new(0)).collect();
                        parallel(chunks, |index| {
                            counts[index].fetch_add(1, Ordering::Relaxed);
                        });
                        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                    }
                }
            });
        }
    }

    #[test]
    fn what_is_stopped_ends_at_its_next_chunk_and_nothing_else_does() {
        for threads in [1, 3] {
            with_threads(threads, || {
                let stop = Arc::new(AtomicBool::new(false));
                let begun = AtomicU32::new(0);
                let stopped = stoppable(&stop, || {
                    parallel(1000, |_| {
                        begun.fetch_add(1, Ordering::Relaxed);
                        stop.store(true, Ordering::Relaxed);
                    });
                });
                assert_eq!(stopped, Err(Stopped));
                assert!(begun.load(Ordering::Relaxed) <= threads as u32);
                assert_eq!(stoppable(&stop, checkpoint), Err(Stopped));
                // Not what runs outside of it, nor what is stopped by another.
                checkpoint();
                let whole = AtomicU32::new(0);
                parallel(100, |_| {
                    whole.fetch_add(1, Ordering::Relaxed);
                });
                let other = Arc::new(AtomicBool::new(false));
                assert_eq!(stoppable(&other, || 7), Ok(7));
                assert_eq!(whole.load(Ordering::Relaxed), 100);
            });
        }
    }

    #[test]
    fn a_loop_inside_a_loop_and_loops_from_several_threads_finish() {
        let total = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    with_threads(3, || {
                        for _ in 0..20 {
                            parallel(4, |_| {
                                parallel(5, |_| {
                                    total.fetch_add(1, Ordering::Relaxed);
                                });
                            });
                        }
                    });
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 3 * 20 * 4 * 5);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        with_threads(3, || {
            for _ in 0..10 {
                let caught = catch_unwind(|| parallel(16, |index| assert!(index != 11, "chunk eleven")));
                let message = caught.unwrap_err();
                assert_eq!(message.downcast_ref::<&str>(), Some(&"chunk eleven"));
                let sum = AtomicU32::new(0);
                parallel(16, |index| {
                    sum.fetch_add(index as u32, Ordering::Relaxed);
                });
                assert_eq!(sum.load(Ordering::Relaxed), 120);
            }
        });
    }

    #[test]
    fn the_parts_of_a_slice_cover_it_without_overlap() {
        let mut data = vec![0_u32; 1003];
        with_threads(2, || {
            parallel_chunks(&mut data, 10, |index, part| {
                part.iter_mut().for_each(|x| *x += index as u32 + 1)
            });
        });
        assert!(data.iter().enumerate().all(|(position, value)| *value == position as u32 / 10 + 1));
    }

    /// Whether a worker helps sooner or later: a pool that other tests of this process use has none to spare at times.
    fn two_threads_take_part() -> bool {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::time::Instant::now() < until {
            let seen = Mutex::new(std::collections::HashSet::new());
            parallel(40, |_| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                seen.lock().unwrap().insert(std::thread::current().id());
            });
            if seen.into_inner().unwrap().len() == 2 {
                return true;
            }
        }
        false
    }

    #[test]
    fn a_pool_that_was_begun_anew_starts_workers_of_its_own() {
        with_threads(2, || {
            for _ in 0..3 {
                forked();
                assert!(two_threads_take_part());
            }
        });
    }

    #[test]
    fn a_parked_worker_is_woken() {
        with_threads(2, || {
            for _ in 0..3 {
                std::thread::sleep(std::time::Duration::from_millis(30));
                assert!(two_threads_take_part());
            }
        });
    }
}
