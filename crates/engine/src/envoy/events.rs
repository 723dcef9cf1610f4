//! Events and acknowledgements of hosts, as inputs of the actors they speak of.

use lifecycle::actor::{EventKind, Input};
use protocol::envoy::{ActorIntent, ActorState, Event, EventWrapper, StopCode, ToRivetAckCommands};
use protocol::id::ActorId;
use protocol::limits;

use super::error::EnvoyClose;
use crate::hosts::Host;
use crate::scheduler::Scheduler;

/// Feeds events to their actors, in order. An actor id that is none ends the connection: the host is broken
/// (`spec/envoy-protocol.md` 2.3).
pub(super) async fn events(scheduler: &Scheduler, host: &Host, events: Vec<EventWrapper>) -> Result<(), EnvoyClose> {
    for EventWrapper { checkpoint, inner } in events {
        let actor: ActorId = checkpoint.actor_id.parse().map_err(|_| EnvoyClose::Internal)?;
        let (generation, index) = (checkpoint.generation, checkpoint.index);
        scheduler.claim(host, actor, generation);
        let kind = kind(inner);
        // A generation that has moved on, or never was here: another namespace may have a host with the same key. The host may
        // forget the event, but must not go on. It may have missed that it should stop: the command was lost with an engine
        // process that ended, or the start came through an endpoint when nobody waited for it any more.
        if host.generation_of(actor) != Some(generation) {
            host.event_disregarded(actor, generation, index);
            match kind {
                // With this, a host that repeats its history has said that it knows.
                EventKind::Stopped { .. } => host.dismissed(actor, generation),
                EventKind::IntentSleep | EventKind::IntentStop | EventKind::Running | EventKind::SetAlarm(_) => {
                    host.dismiss(actor, generation);
                }
            }
            continue;
        }
        match kind {
            // Told before this is stored: what reaches the host from now on may be mistaken for the next generation's.
            EventKind::Stopped { .. } => scheduler.hold_back_messages(actor, generation),
            EventKind::IntentSleep | EventKind::IntentStop | EventKind::Running | EventKind::SetAlarm(_) => {}
        }
        let input = Input::Event { host: host.key.clone(), generation, index, kind };
        scheduler.post_with_room(actor, input).await;
    }
    Ok(())
}

pub(super) fn kind(event: Event) -> EventKind {
    match event {
        Event::ActorIntent { intent: ActorIntent::Sleep } => EventKind::IntentSleep,
        Event::ActorIntent { intent: ActorIntent::Stop } => EventKind::IntentStop,
        Event::ActorStateUpdate { state: ActorState::Running } => EventKind::Running,
        Event::ActorStateUpdate { state: ActorState::Stopped { code, message } } => {
            let error = match code {
                StopCode::Ok => false,
                StopCode::Error => true,
            };
            EventKind::Stopped { error, message: message.map(cut) }
        }
        Event::ActorSetAlarm { alarm_ts } => EventKind::SetAlarm(alarm_ts),
    }
}

/// Each record holds its actor's last crash message, so it must not be of any length.
fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(limits::CRASH_MESSAGE_MAX_BYTES));
    message
}

/// Forgets acknowledged commands. The actor's record remembers it too, so that a start is not repeated after an engine
/// restart.
pub(super) async fn command_acks(scheduler: &Scheduler, host: &Host, acks: ToRivetAckCommands) -> Result<(), EnvoyClose> {
    for checkpoint in acks.last_command_checkpoints {
        let actor: ActorId = checkpoint.actor_id.parse().map_err(|_| EnvoyClose::Internal)?;
        let (generation, index) = (checkpoint.generation, checkpoint.index);
        scheduler.claim(host, actor, generation);
        host.commands_acknowledged(actor, generation, index);
        if host.generation_of(actor) == Some(generation) {
            let input = Input::CommandsAcked { host: host.key.clone(), generation, index };
            scheduler.post_with_room(actor, input).await;
        }
    }
    Ok(())
}
