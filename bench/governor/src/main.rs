//! One round of governor, to compare with Weir: a keyed rate limiter (dashmap, `String` keys), one hot key, every hit
//! admitted. Prints nanoseconds per decision: with governor's own clock, and with its fake clock.
//!
//! The fake clock advances at each decision, as does the time argument of Weir.
use governor::clock::{DefaultClock, FakeRelativeClock};
use governor::{Quota, RateLimiter};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

const HITS: u32 = 2_000_000;
const KEY: &str = "LIMITER/10.1.2.3/api.view";

fn quota() -> Quota {
    Quota::per_minute(NonZeroU32::new(u32::MAX).unwrap())
}

fn own_clock() -> f64 {
    let limiter = RateLimiter::dashmap_with_clock(quota(), DefaultClock::default());
    let key = String::from(KEY);
    let start = Instant::now();
    for _ in 0..HITS {
        assert!(black_box(limiter.check_key(black_box(&key))).is_ok());
    }
    start.elapsed().as_nanos() as f64 / f64::from(HITS)
}

fn fake_clock() -> f64 {
    let clock = FakeRelativeClock::default();
    let limiter = RateLimiter::dashmap_with_clock(quota(), clock.clone());
    let key = String::from(KEY);
    let tick = Duration::from_nanos(100_000);
    let start = Instant::now();
    for _ in 0..HITS {
        clock.advance(tick);
        assert!(black_box(limiter.check_key(black_box(&key))).is_ok());
    }
    start.elapsed().as_nanos() as f64 / f64::from(HITS)
}

fn main() {
    println!("{:.3} {:.3}", own_clock(), fake_clock());
}
