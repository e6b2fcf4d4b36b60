//! The pool: every task once, nothing lost, idle when idle, a panic told.

use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;

use super::*;

#[test]
fn every_index_is_visited_once_with_any_number_of_threads() {
    for threads in [1, 2, 3, 8, 64] {
        let pool = Pool::new(threads);
        for count in [0, 1, 7, 100, 5000] {
            let visits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            pool.for_each(count, 3, |i| {
                visits[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(visits.iter().all(|v| v.load(Ordering::Relaxed) == 1), "{threads} threads, {count}");
        }
    }
}

#[test]
fn a_parked_pool_wakes() {
    let pool = Pool::new(3);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(5));
        // Only three threads together pass it.
        let all = Barrier::new(3);
        pool.for_each(3, 1, |_| {
            all.wait();
        });
    }
}

#[test]
fn a_lent_worker_stays_away_and_comes_back() {
    let mut pool = Pool::new(2);
    pool.lends = true;
    let caller = std::thread::current().id();
    let others = |pool: &Pool| {
        let others = AtomicUsize::new(0);
        pool.for_each(200, 1, |_| {
            others.fetch_add(usize::from(std::thread::current().id() != caller), Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(20));
        });
        others.into_inner()
    };
    assert!(others(&pool) > 0);
    for _ in 0..20 {
        pool.lend();
        // One that was about to enter does so.
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(others(&pool), 0);
        assert_eq!(others(&pool), 0);
        pool.take_back();
        let both = Barrier::new(2);
        pool.for_each(2, 1, |_| {
            both.wait();
        });
    }
    // A pool whose worker is away ends too.
    pool.lend();
}

#[test]
fn many_short_regions_lose_nothing() {
    for (threads, regions) in [(2, 20_000), (5, 2000), (64, 200)] {
        let pool = Pool::new(threads);
        let sum = AtomicUsize::new(0);
        for _ in 0..regions {
            pool.for_each(4, 1, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.load(Ordering::Relaxed), regions * 6, "{threads} threads");
    }
}

/// Callers of one pool on several threads wait for one another.
#[test]
fn several_callers_take_turns() {
    let pool = Pool::new(3);
    let sum = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..500 {
                    pool.for_each(10, 2, |i| {
                        sum.fetch_add(i, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(sum.load(Ordering::Relaxed), 3 * 500 * 45);
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_worker_takes_no_time() {
    let pool = Pool::new(2);
    let caller = std::thread::current().id();
    let worker = Mutex::new(None);
    let both = Barrier::new(2);
    pool.for_each(2, 1, |_| {
        both.wait();
        if std::thread::current().id() != caller {
            *worker.lock().unwrap() = Some(std::fs::read_link("/proc/thread-self").unwrap());
        }
    });
    let schedule = std::path::Path::new("/proc").join(worker.lock().unwrap().take().unwrap());
    // Nanoseconds on a CPU (proc(5)).
    let busy = || -> u64 {
        let text = std::fs::read_to_string(schedule.join("schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    };
    std::thread::sleep(Duration::from_millis(20));
    let before = busy();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(busy(), before);
}

#[test]
fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
    let pool = Pool::new(2);
    for bad in 0..2 {
        let both = Barrier::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.for_each(2, 1, |i| {
                both.wait();
                assert_ne!(i, bad, "on purpose");
            });
        }));
        assert!(caught.is_err());
        let done = AtomicUsize::new(0);
        pool.for_each(2, 1, |_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 2);
    }
}
