use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

use crate::http::ApiError;

/// How often one key, or one address, may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second in the long run; no limit when absent.
    pub per_second: Option<NonZeroU32>,
}

/// Seconds' worth of requests that may come at once.
const BURST: NonZeroU32 = NonZeroU32::new(4).unwrap();
/// So many askers are remembered before those who have been quiet are forgotten.
const REMEMBERED: usize = 10_000;

/// Who asks too often.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::http) enum Asker {
    Key(String),
    /// An address, or the /64 network of one: that is what one customer of a provider has.
    Address(IpAddr),
}

impl Asker {
    pub(in crate::http) fn address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Counts requests by asker.
#[derive(Clone)]
pub(in crate::http) struct Limiter {
    counts: Option<Arc<RateLimiter<Asker, HashMapStateStore<Asker>, DefaultClock>>>,
}

impl Limiter {
    pub(in crate::http) fn new(limit: RateLimit) -> Self {
        let counts = limit.per_second.map(|rate| {
            let quota = Quota::per_second(rate).allow_burst(rate.saturating_mul(BURST));
            Arc::new(RateLimiter::hashmap(quota))
        });
        Self { counts }
    }

    /// Counts one request.
    pub(in crate::http) fn check(&self, asker: &Asker) -> Result<(), ApiError> {
        let Some(counts) = &self.counts else { return Ok(()) };
        if counts.len() > REMEMBERED {
            counts.retain_recent();
        }
        counts.check_key(asker).map_err(|refusal| {
            let wait = refusal.wait_time_from(DefaultClock::default().now());
            ApiError::RateLimited { retry_after: wait.max(Duration::from_secs(1)) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn askers_are_counted_apart_and_a_burst_has_an_end() {
        let limiter = Limiter::new(RateLimit { per_second: NonZeroU32::new(2) });
        let (one, other) = (Asker::Key("a".into()), Asker::address("2001:db8::1".parse().unwrap()));
        for _ in 0..8 {
            limiter.check(&one).unwrap();
        }
        assert!(matches!(limiter.check(&one), Err(ApiError::RateLimited { .. })));
        limiter.check(&other).unwrap();
        assert_eq!(other, Asker::address("2001:db8::2".parse().unwrap()), "one network");
        assert_ne!(other, Asker::address("2001:db8:0:1::1".parse().unwrap()));
    }
}
