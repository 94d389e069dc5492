//! DPDK's threads, and those that join them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy does not see that helpers of tests are tests

mod common;

use common::eal;
use dpdk::{Error, Lcore};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// The lcores have one owner each; the tests share them.
fn lcore() -> Lcore {
    workers().lock().unwrap().pop().expect("three workers for at most three tests at once")
}

fn workers() -> &'static Mutex<Vec<Lcore>> {
    static WORKERS: OnceLock<Mutex<Vec<Lcore>>> = OnceLock::new();
    WORKERS.get_or_init(|| {
        let workers = eal().take_lcores();
        assert_eq!(workers.len(), 3, "four lcores, one of them the main one");
        Mutex::new(workers)
    })
}

fn give_back(lcore: Lcore) {
    workers().lock().unwrap().push(lcore);
}

fn own_name() -> String {
    std::fs::read_to_string("/proc/thread-self/comm").unwrap().trim().to_owned()
}

#[test]
fn a_job_runs_under_its_name_and_returns_its_result() {
    let worker = lcore();
    let id = worker.id();
    let job = worker.launch("data-7", || (own_name(), 42)).unwrap();
    assert_eq!(job.lcore(), id);
    let (worker, result) = job.join();
    assert_eq!(result, ("data-7".to_owned(), 42));

    let (worker, result) = worker.launch("a-name-too-long-for-linux", own_name).unwrap().join();
    assert_eq!(result, "a-name-too-long");
    let (worker, result) = worker.launch("ääääääää", own_name).unwrap().join();
    assert_eq!(result, "äääääää", "cut between two letters, not within one");
    give_back(worker);
}

/// In a process of its own, which is this test again.
#[test]
fn a_job_that_panics_ends_the_process() {
    const SELF: &str = "DPDK_TEST_PANICS";
    if std::env::var_os(SELF).is_some() {
        lcore().launch("data-0", || panic!("as the test wants")).unwrap().join();
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_job_that_panics_ends_the_process", "--nocapture"]).env(SELF, "yes");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.signal().is_some(), "{:?}: {said}", output.status);
    assert!(said.contains("as the test wants"), "{said}");
}

#[test]
fn a_job_says_when_it_is_finished() {
    let go = Arc::new(AtomicBool::new(false));
    let job = {
        let go = Arc::clone(&go);
        lcore().launch("data-1", move || {
            while !go.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        })
    }
    .unwrap();
    assert!(!job.is_finished());
    go.store(true, Ordering::Release);
    while !job.is_finished() {
        std::thread::yield_now();
    }
    give_back(job.join().0);
}

#[test]
fn lcores_are_handed_out_once() {
    workers();
    assert!(eal().take_lcores().is_empty());
}

#[test]
fn a_thread_registers_once_and_leaves_when_its_guard_is_dropped() {
    std::thread::spawn(|| {
        let guard = eal().register_thread().unwrap();
        assert!(matches!(eal().register_thread(), Err(Error::RegisterThread { .. })));
        drop(guard);
        drop(eal().register_thread().unwrap());
    })
    .join()
    .unwrap();
}

#[test]
fn the_time_stamp_counter_runs_at_its_stated_speed() {
    let (eal, start, ticks) = (eal(), std::time::Instant::now(), dpdk::tsc());
    std::thread::sleep(std::time::Duration::from_millis(50));
    let (ticks, seconds) = (dpdk::tsc() - ticks, start.elapsed().as_secs_f64());
    let measured = ticks as f64 / seconds;
    let stated = eal.tsc_hz() as f64;
    assert!((0.9..1.1).contains(&(measured / stated)), "{measured} against {stated}");
}
