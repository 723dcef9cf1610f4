use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn limits(requests: u64, max_in_flight: u64) -> ClientLimits {
    ClientLimits { rate: Some(RateLimit { requests, period: MINUTE }), max_in_flight: Some(max_in_flight) }
}

fn key(actor: u8, host: u8) -> Key {
    Key { subject: Subject::Actor(ActorId::from_parts([actor; 16], 1)), ip: IpAddr::from([192, 0, 2, host]) }
}

/// A request that ends at once.
fn pass(table: &mut Table, key: Key, limits: &ClientLimits, now: Instant) -> Result<(), Excess> {
    table.admit(key, limits, now)?;
    table.release(key, now);
    Ok(())
}

#[test]
fn the_window_is_full_at_its_limit_and_new_at_its_end() {
    let start = Instant::now();
    let limits = limits(1_200, 32);
    let mut table = Table::new(10_000, HOUR, start);
    // The window begins with the first request, whatever came before it.
    let first = start + Duration::from_secs(17);
    for _ in 0..1_200 {
        assert_eq!(pass(&mut table, key(1, 1), &limits, first), Ok(()));
    }
    let refused = |retry_after| Err(Excess::Rate { limit: limits.rate.unwrap(), retry_after });
    assert_eq!(pass(&mut table, key(1, 1), &limits, first), refused(MINUTE));
    assert_eq!(pass(&mut table, key(2, 1), &limits, first), Ok(()), "another actor");
    assert_eq!(pass(&mut table, key(1, 2), &limits, first), Ok(()), "another client");
    let almost = first + MINUTE - Duration::from_nanos(1);
    assert_eq!(pass(&mut table, key(1, 1), &limits, almost), refused(Duration::from_nanos(1)));
    for _ in 0..1_200 {
        assert_eq!(pass(&mut table, key(1, 1), &limits, first + MINUTE), Ok(()));
    }
    assert_eq!(pass(&mut table, key(1, 1), &limits, first + MINUTE), refused(MINUTE));
}

#[test]
fn one_too_many_at_once_is_refused_until_one_ends_and_counts_in_the_window() {
    let now = Instant::now();
    let limits = limits(34, 32);
    let mut table = Table::new(10_000, HOUR, now);
    for _ in 0..32 {
        assert_eq!(table.admit(key(1, 1), &limits, now), Ok(()));
    }
    assert_eq!(table.admit(key(1, 1), &limits, now), Err(Excess::InFlight { max: 32 }));
    table.release(key(1, 1), now);
    assert_eq!(table.admit(key(1, 1), &limits, now), Ok(()));
    // 32 and the refused one and the last one.
    assert!(matches!(table.admit(key(1, 1), &limits, now), Err(Excess::Rate { .. })));
    // What is open stays open when the window ends.
    assert_eq!(table.admit(key(1, 1), &limits, now + MINUTE), Err(Excess::InFlight { max: 32 }));
}

#[test]
fn what_moves_elsewhere_counts_there() {
    let now = Instant::now();
    let limits = limits(3, 2);
    let mut table = Table::new(10_000, HOUR, now);
    let nobody = Key { subject: Subject::Nobody(7), ..key(1, 1) };
    for _ in 0..2 {
        assert_eq!(table.admit(nobody, &limits, now), Ok(()));
        table.transfer(nobody, key(1, 1), &limits, now);
    }
    assert_eq!(table.admit(key(1, 1), &limits, now), Err(Excess::InFlight { max: 2 }));
    assert_eq!(pass(&mut table, nobody, &limits, now), Ok(()), "nothing is open there any more");
    assert!(matches!(pass(&mut table, nobody, &limits, now), Err(Excess::Rate { .. })), "but it was in this window");
    table.release(key(1, 1), now);
    table.release(key(1, 1), now);
    assert_eq!(table.idle, 2);
}

#[test]
fn a_full_table_forgets_who_was_quiet_longest_and_nobody_with_open_requests() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let limits = limits(1, 1);
    let mut table = Table::new(100, HOUR, start);
    assert_eq!(table.admit(key(1, 0), &limits, at(0)), Ok(()));
    for host in 1..=100 {
        assert_eq!(pass(&mut table, key(1, host), &limits, at(1)), Ok(()));
    }
    for host in 27..=100 {
        assert!(matches!(pass(&mut table, key(1, host), &limits, at(2)), Err(Excess::Rate { .. })));
    }
    assert_eq!(pass(&mut table, key(1, 101), &limits, at(3)), Ok(()));
    assert_eq!(table.idle, 75);
    assert!(matches!(pass(&mut table, key(1, 0), &limits, at(3)), Err(Excess::Rate { .. })), "it has an open request");
    assert!(matches!(pass(&mut table, key(1, 100), &limits, at(3)), Err(Excess::Rate { .. })));
    assert_eq!(pass(&mut table, key(1, 1), &limits, at(3)), Ok(()), "it is new again");
}

#[test]
fn who_is_idle_for_long_is_forgotten() {
    let start = Instant::now();
    let limits = limits(1, 2);
    let mut table = Table::new(100, Duration::from_secs(10), start);
    assert_eq!(table.admit(key(1, 1), &limits, start), Ok(()));
    let later = start + Duration::from_secs(10);
    assert!(matches!(pass(&mut table, key(1, 1), &limits, later), Err(Excess::Rate { .. })), "it is not idle");
    table.release(key(1, 1), later);
    assert_eq!(pass(&mut table, key(1, 1), &limits, later + Duration::from_secs(10)), Ok(()));
    assert_eq!(pass(&mut table, key(2, 1), &limits, later + Duration::from_secs(30)), Ok(()));
    assert_eq!(table.usages.len(), 1, "looked through now and then even if there is room");
}

/// What a client does next.
#[derive(Debug, Clone)]
enum Move {
    Admit(u8),
    Release(u8),
    Transfer(u8, u8),
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => (0..6_u8).prop_map(Move::Admit),
        4 => (0..6_u8).prop_map(Move::Release),
        1 => (0..6_u8, 0..6_u8).prop_map(|(from, to)| Move::Transfer(from, to)),
        2 => (0..40_u64).prop_map(Move::Wait),
    ];
    proptest::collection::vec(one, 0..200)
}

/// The rules for one client, as plainly as they can be put.
#[derive(Default)]
struct Plain {
    /// When the last window began, and how many requests came in it, refused ones included.
    window: Option<(Instant, u64)>,
    open: u64,
}

impl Plain {
    /// Counts a request; returns how many have come in its window.
    fn count(&mut self, now: Instant) -> u64 {
        let (begun, before) = self.window.filter(|(begun, _)| now < *begun + MINUTE).unwrap_or((now, 0));
        self.window = Some((begun, before + 1));
        before + 1
    }

    fn admits(&mut self, limits: &ClientLimits, now: Instant) -> bool {
        self.count(now) <= limits.rate.unwrap().requests && self.open < limits.max_in_flight.unwrap()
    }
}

proptest! {
    /// Whoever is not forgotten is treated by the rules; open requests are never forgotten; memory stays bounded.
    #[test]
    fn any_history(moves in moves(), room in prop_oneof![Just(0_usize), Just(2), Just(100)]) {
        let limits = limits(5, 3);
        let mut now = Instant::now();
        let mut table = Table::new(room, HOUR, now);
        let mut plain: [Plain; 6] = std::array::from_fn(|_| Plain::default());
        for next in moves {
            match next {
                Move::Admit(client) => {
                    let admitted = table.admit(key(client, 1), &limits, now).is_ok();
                    let plain = &mut plain[usize::from(client)];
                    let expected = plain.admits(&limits, now);
                    prop_assert!(room < 100 || admitted == expected);
                    plain.open += u64::from(admitted);
                    prop_assert!(plain.open <= 3);
                }
                Move::Release(client) if plain[usize::from(client)].open > 0 => {
                    plain[usize::from(client)].open -= 1;
                    table.release(key(client, 1), now);
                }
                Move::Transfer(from, to) if from != to && plain[usize::from(from)].open > 0 && plain[usize::from(to)].open < 3 => {
                    plain[usize::from(from)].open -= 1;
                    plain[usize::from(to)].count(now);
                    plain[usize::from(to)].open += 1;
                    table.transfer(key(from, 1), key(to, 1), &limits, now);
                }
                Move::Release(_) | Move::Transfer(..) => {}
                Move::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            let idle = table.usages.values().filter(|usage| usage.in_flight == 0).count();
            prop_assert_eq!(idle, table.idle);
            prop_assert!(idle <= room);
            for (client, plain) in (0..).zip(&plain) {
                prop_assert_eq!(table.usages.get(&key(client, 1)).map_or(0, |usage| usage.in_flight), plain.open);
            }
        }
    }
}
