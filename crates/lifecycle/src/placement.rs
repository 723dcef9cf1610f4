//! Which host gets an actor: the less loaded of two random ones of the newest version (`spec/scheduling.md` 7).

/// A host that may take actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Build number of the application on it.
    pub version: u32,
    /// Actors assigned to it, starting ones included: counting only running ones would skew a burst of creations.
    pub load: usize,
}

/// Picks one of the eligible hosts; `None` when there is none.
///
/// Only the newest version counts. Unlike the reference, versions are compared among *eligible* hosts, so that dead hosts
/// of a newer version do not block healthy older ones. `draws` are two uniform random numbers.
pub fn pick(eligible: &[Candidate], draws: [u64; 2]) -> Option<usize> {
    let newest = eligible.iter().map(|candidate| candidate.version).max()?;
    let of_newest = |candidate: &Candidate| candidate.version == newest;
    let count = eligible.iter().filter(|candidate| of_newest(candidate)).count() as u64;
    let nth = |draw: u64| {
        let position = (draw % count) as usize;
        eligible.iter().enumerate().filter(|(_, candidate)| of_newest(candidate)).nth(position)
    };
    let (first, second) = (nth(draws[0])?, nth(draws[1])?);
    Some(if second.1.load < first.1.load { second.0 } else { first.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_version_counts() {
        let hosts = [Candidate { version: 1, load: 0 }, Candidate { version: 2, load: 9 }, Candidate { version: 1, load: 0 }];
        for draw in 0..10 {
            assert_eq!(pick(&hosts, [draw, draw + 1]), Some(1));
        }
        assert_eq!(pick(&[], [0, 0]), None);
    }

    #[test]
    fn sequential_creations_spread_evenly() {
        let mut hosts = [Candidate { version: 1, load: 0 }; 4];
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..40 {
            let chosen = pick(&hosts, [draw(), draw()]).unwrap();
            hosts[chosen].load += 1;
        }
        assert!(hosts.iter().all(|host| (5..=15).contains(&host.load)), "{hosts:?}");
    }
}
