//! Time by counting processor ticks, steered by the host's clock.
//!
//! The kernel and the vDSO compute time with the same arithmetic from the same numbers, so that a guest that mixes
//! system calls and vDSO calls never sees time step back. The numbers are [`Params`]; they are corrected now and then,
//! by whoever reads the clock when it is due, so that nothing wakes up for it: the rate is bent a little until our time meets
//! the host's again, and time itself does not jump.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

use memory::tsc;
use parking_lot::Mutex;

/// Longest time between corrections, nanoseconds.
const MAX_INTERVAL: i64 = 1_000_000_000;
/// Shortest measurement that gives a usable rate, nanoseconds.
const FIRST_INTERVAL: i64 = 2_000_000;
/// An error past which the clock is set instead of bent, where it lags behind the host's.
const STEP: i64 = 10_000_000;

/// How ticks become nanoseconds: `base_ns + (tsc - base_tsc) * mult / 2^32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// The counter at the last correction.
    pub base_tsc: u64,
    /// Nanoseconds a tick, 32.32 fixed point.
    pub mult: u64,
    /// Monotonic time at `base_tsc`, nanoseconds.
    pub base_ns: i64,
    /// Real time minus monotonic time, nanoseconds.
    pub real_offset: i64,
}

impl Params {
    /// Monotonic time at `tsc`.
    #[must_use]
    pub fn at(&self, tsc: u64) -> i64 {
        let delta = u128::from(tsc.saturating_sub(self.base_tsc));
        let ns = (delta * u128::from(self.mult)) >> 32;
        self.base_ns.saturating_add(i64::try_from(ns).unwrap_or(i64::MAX))
    }
}

/// What the host's clocks say, and the counter at that moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The counter, read just before.
    pub tsc: u64,
    /// Host CLOCK_MONOTONIC.
    pub mono: i64,
    /// Host CLOCK_REALTIME minus CLOCK_MONOTONIC.
    pub real_offset: i64,
}

/// Called with every new set of numbers (`None`: the counter cannot be used), under the steering lock.
pub type Publish = Box<dyn Fn(Option<Params>) + Send + Sync>;

#[derive(Default)]
struct Steering {
    first: Option<Sample>,
    publish: Option<Publish>,
    last: Option<Params>,
}

/// A clock that counts ticks.
pub struct TscClock {
    seq: AtomicU32,
    base_tsc: AtomicU64,
    mult: AtomicU64,
    base_ns: AtomicI64,
    real_offset: AtomicI64,
    /// The counter value from which on a correction is due; `u64::MAX` where the counter is of no use.
    due: AtomicU64,
    /// Without a level: the clock is read under any lock, and nothing else is taken inside.
    steering: Mutex<Steering>,
}

impl std::fmt::Debug for TscClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TscClock").field("params", &self.params()).finish_non_exhaustive()
    }
}

impl Default for TscClock {
    fn default() -> Self {
        Self::new(tsc::is_invariant())
    }
}

impl TscClock {
    /// A clock that starts counting once it has measured the rate.
    #[must_use]
    pub fn new(usable: bool) -> Self {
        TscClock {
            seq: AtomicU32::new(0),
            base_tsc: AtomicU64::new(0),
            mult: AtomicU64::new(0),
            base_ns: AtomicI64::new(0),
            real_offset: AtomicI64::new(0),
            due: AtomicU64::new(if usable { 0 } else { u64::MAX }),
            steering: Mutex::new(Steering::default()),
        }
    }

    /// The numbers now; `None` until the rate is known.
    #[must_use]
    pub fn params(&self) -> Option<Params> {
        loop {
            let seq = self.seq.load(Ordering::Acquire);
            let params = Params {
                base_tsc: self.base_tsc.load(Ordering::Relaxed),
                mult: self.mult.load(Ordering::Relaxed),
                base_ns: self.base_ns.load(Ordering::Relaxed),
                real_offset: self.real_offset.load(Ordering::Relaxed),
            };
            fence(Ordering::Acquire);
            if seq & 1 == 0 && self.seq.load(Ordering::Relaxed) == seq {
                return (params.mult != 0).then_some(params);
            }
            std::hint::spin_loop();
        }
    }

    /// Monotonic time and the real-time offset; `None` until the rate is known. Corrects the clock where that is due.
    pub fn read(&self, sample: impl Fn() -> Sample) -> Option<(i64, i64)> {
        let now = tsc::now();
        if now >= self.due.load(Ordering::Relaxed) {
            self.steer(sample);
        }
        let params = self.params()?;
        Some((params.at(tsc::now()), params.real_offset))
    }

    /// Hears of all numbers from now on.
    pub fn subscribe(&self, publish: Publish) {
        let mut steering = self.steering.lock();
        publish(steering.last);
        steering.publish = Some(publish);
    }

    fn steer(&self, sample: impl Fn() -> Sample) {
        let Some(mut steering) = self.steering.try_lock() else { return };
        let now = sample();
        let Some(first) = steering.first else {
            steering.first = Some(now);
            // Some ten thousand ticks on, whatever the rate: then the elapsed time decides.
            self.due.store(now.tsc.saturating_add(1 << 20), Ordering::Relaxed);
            return;
        };
        let (ticks, elapsed) = (now.tsc.saturating_sub(first.tsc), now.mono.saturating_sub(first.mono));
        if ticks == 0 || elapsed < FIRST_INTERVAL {
            self.due.store(now.tsc.saturating_add(1 << 20), Ordering::Relaxed);
            return;
        }
        let (params, interval) = next_params(steering.last, now, ticks, elapsed);
        self.set(params);
        steering.last = Some(params);
        if let Some(publish) = &steering.publish {
            publish(Some(params));
        }
        let wait = (u128::from(interval.unsigned_abs()) << 32) / u128::from(params.mult.max(1));
        self.due.store(now.tsc.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX >> 1)), Ordering::Relaxed);
    }

    fn set(&self, params: Params) {
        let seq = self.seq.load(Ordering::Relaxed);
        self.seq.store(seq.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.base_tsc.store(params.base_tsc, Ordering::Relaxed);
        self.mult.store(params.mult, Ordering::Relaxed);
        self.base_ns.store(params.base_ns, Ordering::Relaxed);
        self.real_offset.store(params.real_offset, Ordering::Relaxed);
        self.seq.store(seq.wrapping_add(2), Ordering::Release);
    }
}

/// The numbers from `now` on, and how long they are good for. `ticks` took `elapsed` nanoseconds of the host's clock.
fn next_params(last: Option<Params>, now: Sample, ticks: u64, elapsed: i64) -> (Params, i64) {
    let rate = (u128::from(elapsed.unsigned_abs()) << 32) / u128::from(ticks);
    let rate = u64::try_from(rate).unwrap_or(u64::MAX >> 1).max(1);
    // The better the measurement, the longer it may stand.
    let interval = elapsed.saturating_mul(4).min(MAX_INTERVAL);
    let ours = last.map_or(now.mono, |p| p.at(now.tsc));
    let behind = now.mono.saturating_sub(ours);
    let base_ns = if behind > STEP { now.mono } else { ours };
    let behind = if behind > STEP { 0 } else { behind };
    // At most a tenth faster or slower, so that time always goes on.
    let bend = behind.clamp(-interval / 10, interval / 10);
    let bent = i128::from(rate) * i128::from(interval + bend) / i128::from(interval.max(1));
    let mult = u64::try_from(bent).unwrap_or(rate).max(1);
    (Params { base_tsc: now.tsc, mult, base_ns, real_offset: now.real_offset }, interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(tsc: u64, mono: i64) -> Sample {
        Sample { tsc, mono, real_offset: 0 }
    }

    #[test]
    fn time_meets_the_hosts_and_never_jumps_back() {
        let mut last = None;
        let mut tsc = 1_000_000u64;
        let mut before = 0;
        for step in 1..200i64 {
            // A counter of 3 GHz, and a host clock that runs 200 ppm fast from the 50th step on.
            tsc += 3_000_000_000;
            let fast = if step > 50 { (step - 50) * 200_000 } else { 0 };
            let host = step * 1_000_000_000 + fast;
            let (params, _) = next_params(last, sample(tsc, host), tsc - 1_000_000, host);
            assert!(params.at(tsc) >= before);
            before = params.at(tsc);
            if step > 1 && !(50..60).contains(&step) {
                assert!((params.at(tsc) - host).abs() < 2_000_000, "{step}: {}", params.at(tsc) - host);
            }
            last = Some(params);
        }
    }

    #[test]
    fn counts_at_the_hosts_pace() {
        let clock = TscClock::default();
        let start = std::time::Instant::now();
        let host = move || {
            let tsc = tsc::now();
            Sample { tsc, mono: start.elapsed().as_nanos() as i64, real_offset: 5 }
        };
        let mut last = 0;
        // On a busy host it may take a while until two samples were taken without being interrupted.
        while start.elapsed().as_millis() < if last == 0 && tsc::is_invariant() { 5000 } else { 30 } {
            if let Some((mono, offset)) = clock.read(host) {
                assert!(mono >= last && offset == 5);
                last = mono;
            }
        }
        if tsc::is_invariant() {
            assert!(last > 0);
        }
    }
}
