//! Which version of the application the endpoint of a pool is believed to run (`spec/scheduling.md` 8.1, 9.2).

/// Readings in a row of versions that are lower than the one believed in, before one of them is believed.
///
/// While a deployment rolls, old and new processes answer behind one address, and the readings go back and forth. A version
/// that is higher is the news that matters, and it is no less true when an old process answers next. A rollback lasts.
pub const LOWER_READINGS: u32 = 5;

/// What is believed of one endpoint, from the first reading on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenVersion {
    version: u32,
    /// Readings of lower versions since the last one that was not.
    lower_readings: u32,
    /// The highest version among them; 0 without any.
    highest_lower: u32,
}

impl SeenVersion {
    /// The first reading is believed.
    pub fn new(version: u32) -> Self {
        Self { version, lower_readings: 0, highest_lower: 0 }
    }

    /// The version that is believed to run.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Takes one more reading. Whether another version is believed in from here on.
    pub fn read(&mut self, version: u32) -> bool {
        let believed = self.version;
        if version >= believed {
            *self = Self::new(version);
        } else {
            self.lower_readings += 1;
            self.highest_lower = self.highest_lower.max(version);
            if self.lower_readings >= LOWER_READINGS {
                *self = Self::new(self.highest_lower);
            }
        }
        self.version != believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is believed after each of the readings.
    fn believed(readings: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut readings = readings.into_iter();
        let mut seen = SeenVersion::new(readings.next().unwrap());
        let mut believed = vec![seen.version()];
        for reading in readings {
            let before = seen.version();
            assert_eq!(seen.read(reading), seen.version() != before);
            believed.push(seen.version());
        }
        believed
    }

    #[test]
    fn a_higher_version_counts_at_once_and_answers_of_old_processes_change_nothing() {
        assert_eq!(believed([1, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 3]), [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3]);
    }

    #[test]
    fn a_rollback_is_believed_when_nothing_else_is_read_any_more() {
        assert_eq!(believed([3, 1, 1, 1, 1, 1, 1]), [3, 3, 3, 3, 3, 1, 1]);
        // Another deployment rolls among the older versions: the newest of them it is.
        assert_eq!(believed([9, 1, 2, 1, 1, 1, 2]), [9, 9, 9, 9, 9, 2, 2]);
    }
}
