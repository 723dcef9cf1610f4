//! A queue that can be left from the middle.

use std::collections::{BTreeMap, HashMap};

use protocol::id::ActorId;

/// Actors in the order in which they came.
#[derive(Default)]
pub(super) struct Waiting {
    by_turn: BTreeMap<u64, ActorId>,
    turn_of: HashMap<ActorId, u64>,
    next_turn: u64,
}

impl Waiting {
    /// Joins at the end, or stays where it is.
    pub(super) fn insert(&mut self, actor: ActorId) {
        if self.turn_of.contains_key(&actor) {
            return;
        }
        self.turn_of.insert(actor, self.next_turn);
        self.by_turn.insert(self.next_turn, actor);
        self.next_turn += 1;
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, actor: ActorId) -> bool {
        let turn = self.turn_of.remove(&actor);
        turn.is_some_and(|turn| self.by_turn.remove(&turn).is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_turn.is_empty()
    }

    pub(super) fn in_order(&self) -> impl Iterator<Item = ActorId> {
        self.by_turn.values().copied()
    }

    /// Whose turn it is, apart from one.
    pub(super) fn first_other_than(&self, actor: ActorId) -> Option<ActorId> {
        self.in_order().find(|waiting| *waiting != actor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served_and_anybody_may_leave() {
        let actors: Vec<ActorId> = (0..4).map(|n| ActorId::from_parts([n; 16], 1)).collect();
        let mut waiting = Waiting::default();
        for actor in [0, 1, 2, 1, 3] {
            waiting.insert(actors[actor]);
        }
        assert!(waiting.remove(actors[1]) && !waiting.remove(actors[1]));
        waiting.insert(actors[1]);
        assert_eq!(waiting.in_order().collect::<Vec<_>>(), [actors[0], actors[2], actors[3], actors[1]]);
        assert_eq!(waiting.first_other_than(actors[0]), Some(actors[2]));
        for actor in &actors {
            assert!(waiting.remove(*actor));
        }
        assert!(waiting.is_empty() && waiting.first_other_than(actors[0]).is_none());
    }
}
