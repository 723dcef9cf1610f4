//! The one place where the engine draws lots: ids, placement, spreading out what would happen at once. Passed in, so that a
//! simulation repeats its draws.

use protocol::id::Id;

/// Draws lots; clone freely. Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Randomness(Source);

#[derive(Debug, Clone)]
enum Source {
    /// The generator of each thread.
    Thread,
    /// One sequence for all who share it.
    #[cfg(feature = "simulation")]
    Seeded(std::sync::Arc<parking_lot::Mutex<rand::rngs::StdRng>>),
}

impl Randomness {
    /// Different at each start.
    pub(crate) fn system() -> Self {
        Self(Source::Thread)
    }

    /// The same sequence for the same seed.
    #[cfg(feature = "simulation")]
    pub(crate) fn seeded(seed: u64) -> Self {
        let generator = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
        Self(Source::Seeded(std::sync::Arc::new(parking_lot::Mutex::new(generator))))
    }

    /// Any number.
    pub(crate) fn number(&self) -> u64 {
        match &self.0 {
            Source::Thread => rand::random(),
            #[cfg(feature = "simulation")]
            Source::Seeded(generator) => rand::Rng::next_u64(&mut *generator.lock()),
        }
    }

    /// A fresh id. One is made for every request, so its randomness comes from the thread's generator and not from the
    /// kernel.
    pub(crate) fn id(&self, datacenter_label: u16) -> Id {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.number().to_le_bytes());
        bytes[8..].copy_from_slice(&self.number().to_le_bytes());
        let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
        Id::from_parts(*uuid.as_bytes(), datacenter_label)
    }
}
