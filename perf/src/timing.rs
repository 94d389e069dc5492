//! Windows of CPU time, and what is made of many.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time that the calling thread has used: what others do on this machine is not in it.
pub fn thread_cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// What one window saw.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Packets that came to their end.
    pub delivered: u64,
    /// CPU time of the polling thread.
    pub cpu_time: Duration,
}

impl Window {
    /// Packets for each second of CPU time.
    pub fn packets_per_second(&self) -> f64 {
        self.delivered as f64 / self.cpu_time.as_secs_f64()
    }
}

/// Runs `turn`, which says how many packets it has brought to their end, for so much CPU time.
pub fn measure(span: Duration, mut turn: impl FnMut() -> u64) -> Window {
    let begin = thread_cpu_time();
    let mut delivered = 0;
    loop {
        delivered += turn();
        let cpu_time = thread_cpu_time() - begin;
        if cpu_time >= span {
            return Window { delivered, cpu_time };
        }
    }
}

/// The middle of what was seen; of an even number, the mean of the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (middle, 1) => values[middle],
        (middle, _) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wild_window_does_not_move_the_median() {
        assert_eq!(median([3.0, 1.0, 900.0]), 3.0);
        assert_eq!(median([4.0, 1.0, 2.0, 900.0]), 3.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_window_counts_what_its_turns_bring_and_ends() {
        let mut turns = 0;
        let window = measure(Duration::from_millis(2), || {
            turns += 1;
            32
        });
        assert_eq!(window.delivered, turns * 32);
        assert!(window.cpu_time >= Duration::from_millis(2));
    }
}
