//! How many actors a namespace may create at once (`spec/scheduling.md` 2.1).

use std::collections::HashMap;
use std::time::Duration;

use lifecycle::Ts;
use parking_lot::Mutex;
use protocol::id::NamespaceId;

/// A leaky bucket per namespace.
pub(super) struct CreationLimit {
    burst: f64,
    drip_ms: f64,
    buckets: Mutex<HashMap<NamespaceId, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Ts,
}

impl CreationLimit {
    /// `burst` creations at once, then one per `drip`. A drip of zero means no limit.
    pub(super) fn new(burst: u64, drip: Duration) -> Self {
        Self { burst: burst as f64, drip_ms: drip.as_secs_f64() * 1000.0, buckets: Mutex::default() }
    }

    /// Takes one creation out of the namespace's bucket, if it has one.
    pub(super) fn take(&self, namespace: NamespaceId, now: Ts) -> bool {
        if self.drip_ms <= 0.0 {
            return true;
        }
        // The number of buckets is the number of namespaces.
        let mut buckets = self.buckets.lock();
        let bucket = buckets.entry(namespace).or_insert(Bucket { tokens: self.burst, at: now });
        let dripped = (now - bucket.at).max(0) as f64 / self.drip_ms;
        bucket.tokens = (bucket.tokens + dripped).min(self.burst);
        bucket.at = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_one_per_drip() {
        let limit = CreationLimit::new(6, Duration::from_millis(10));
        let namespace = NamespaceId::from_parts([0; 16], 1);
        let taken = (0..7).filter(|_| limit.take(namespace, 1000)).count();
        assert_eq!(taken, 6);
        assert!(!limit.take(namespace, 1009) && limit.take(namespace, 1010) && !limit.take(namespace, 1010));
        assert!(limit.take(NamespaceId::from_parts([1; 16], 1), 1010));
    }
}
