//! Turns what waits for a host into messages: commands at once, acknowledgements of events a little later and together.

use std::sync::Arc;
use std::time::Duration;

use gateway::EnvoyLink;
use lifecycle::actor::{Command, StopReason};
use protocol::envoy::{
    ActorCheckpoint, Command as WireCommand, CommandStartActor, CommandStopActor, CommandWrapper, StopActorReason, ToEnvoy,
    ToEnvoyAckEvents,
};
use protocol::limits;

use super::connection::EnvoyContext;
use crate::hosts::{Host, PendingCommand};

/// Acknowledgements only save the host memory, so they wait for each other.
const EVENT_ACK_DELAY: Duration = Duration::from_millis(100);
/// What one acknowledgement costs while it waits, in bytes, roughly: an id as text, and two numbers.
const ACK_BYTES: usize = 128;

/// Runs for as long as the connection does. There is one pump per connection, so commands go out in the order of their
/// indices.
pub(super) async fn run(context: Arc<EnvoyContext>, host: Arc<Host>, link: EnvoyLink) {
    tokio::join!(pump_commands(&context, &host, &link), pump_event_acks(&host, &link));
}

async fn pump_commands(context: &EnvoyContext, host: &Host, link: &EnvoyLink) {
    loop {
        host.commands_waiting.notified().await;
        let Some(commands) = host.take_commands_for(link.session()) else {
            // They are for the connection that has taken this one's place.
            host.commands_waiting.notify_one();
            return;
        };
        if send_commands(context, link, commands).await.is_err() {
            return;
        }
    }
}

async fn pump_event_acks(host: &Host, link: &EnvoyLink) {
    loop {
        host.acks_waiting.notified().await;
        tokio::time::sleep(EVENT_ACK_DELAY).await;
        let Some(acks) = host.take_event_acks_for(link.session()) else {
            host.acks_waiting.notify_one();
            return;
        };
        // Of what came during the delay it was told once more.
        if acks.is_empty() {
            continue;
        }
        let bytes = acks.len() * ACK_BYTES;
        let mut last_event_checkpoints = Vec::with_capacity(acks.len());
        for ((actor, generation), index) in acks {
            last_event_checkpoints.push(ActorCheckpoint { actor_id: actor.to_string(), generation, index });
        }
        // A host that sends events and does not read gets no more of these than there is room for.
        if link.send(ToEnvoy::AckEvents(ToEnvoyAckEvents { last_event_checkpoints }), bytes).await.is_err() {
            return;
        }
    }
}

async fn send_commands(
    context: &EnvoyContext,
    link: &EnvoyLink,
    commands: Vec<PendingCommand>,
) -> Result<(), gateway::LinkClosed> {
    let mut wrappers = Vec::with_capacity(commands.len());
    let mut bytes = 0;
    for pending in commands {
        let inner = match pending.command {
            Command::Stop(reason) => WireCommand::StopActor(CommandStopActor { reason: wire_reason(reason) }),
            Command::Start => match start(context, &pending).await {
                Some(start) => {
                    bytes += start.config.input.as_ref().map_or(0, bytes::Bytes::len);
                    WireCommand::StartActor(start)
                }
                None => continue,
            },
        };
        let checkpoint =
            ActorCheckpoint { actor_id: pending.actor.to_string(), generation: pending.generation, index: pending.index };
        wrappers.push(CommandWrapper { checkpoint, inner });
        if bytes > limits::COMMANDS_INPUT_MAX_BYTES {
            link.send(ToEnvoy::Commands(std::mem::take(&mut wrappers)), std::mem::take(&mut bytes)).await?;
        }
    }
    if wrappers.is_empty() {
        return Ok(());
    }
    link.send(ToEnvoy::Commands(wrappers), bytes).await
}

/// `None`: the actor has moved on, or its input cannot be read; the start threshold then ends this generation.
pub(super) async fn start(context: &EnvoyContext, pending: &PendingCommand) -> Option<CommandStartActor> {
    let config = match context.scheduler.start_config(pending.actor, pending.generation).await {
        Ok(config) => config?,
        Err(error) => {
            tracing::error!(actor_id = %pending.actor, %error, "an actor's input cannot be read");
            return None;
        }
    };
    Some(config.into_command(None))
}

fn wire_reason(reason: StopReason) -> StopActorReason {
    match reason {
        StopReason::SleepIntent => StopActorReason::SleepIntent,
        StopReason::StopIntent => StopActorReason::StopIntent,
        StopReason::Destroy => StopActorReason::Destroy,
        StopReason::GoingAway => StopActorReason::GoingAway,
        StopReason::Lost => StopActorReason::Lost,
    }
}
