//! A host's connection without a socket: everything of the real one but the framing.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use gateway::Content;
use lifecycle::actor::{Command, Input};
use protocol::envoy::{CommandStartActor, EventWrapper, ToEnvoy};
use protocol::error::close_reason;
use protocol::id::ActorId;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_websockets::Message;

use super::connection::{self, End, EnvoyContext};
use super::{events, pump};
use crate::hosts::PendingCommand;
use crate::scheduler::Scheduler;

/// What a host gets from the engine.
#[derive(Debug)]
pub enum FromEngine {
    /// A message.
    Message(ToEnvoy),
    /// The engine has closed the connection for this reason, or has seen its end: none.
    Closed(Option<String>),
}

/// A host's end of a connection. Dropping [`Self::frames`] closes it.
#[derive(Debug)]
pub struct HostEnd {
    /// Takes encoded messages of the host.
    pub frames: mpsc::UnboundedSender<Bytes>,
    /// Gives those of the engine.
    pub messages: mpsc::UnboundedReceiver<FromEngine>,
}

/// Connects a host. `query` is that of the address. Fails with the reason of the close frame.
pub(crate) fn connect(context: Arc<EnvoyContext>, query: &str) -> Result<(HostEnd, AbortHandle), String> {
    const RAY: &str = "simulated";
    let admitted = connection::admit(&context, query).map_err(|refusal| close_reason(&refusal, RAY))?;
    let arrived = admitted.arrive(&context);
    let (link, mut outbox) = arrived.link(&context);
    let version = link.protocol_version();
    let (frames, mut incoming) = mpsc::unbounded_channel::<Bytes>();
    let (outgoing, messages) = mpsc::unbounded_channel();
    let stream = stream::poll_fn(move |context| incoming.poll_recv(context).map(|frame| Some(Ok(Message::binary(frame?)))));
    let task = tokio::spawn(async move {
        let write = async {
            while let Some(message) = outbox.messages.recv().await {
                let message = match message.content {
                    Content::Message(message) => Ok(message),
                    Content::Frame(frame) => ToEnvoy::decode(frame, version),
                };
                match message {
                    // Whoever does not read any more has dropped the connection altogether.
                    Ok(message) => drop(outgoing.send(FromEngine::Message(message))),
                    Err(error) => tracing::error!(%error, "the engine has sent what no host can decode"),
                }
            }
            // The queue ends with the connection.
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            biased;
            end = connection::serve(context, arrived, link, stream) => end,
            () = write => return,
        };
        let reason = match end {
            End::ByEngine(why) => Some(close_reason(&why, RAY)),
            End::ByHost => None,
        };
        let _ = outgoing.send(FromEngine::Closed(reason));
    });
    Ok((HostEnd { frames, messages }, task.abort_handle()))
}

/// What a start request carries for a generation; none when it is over.
pub(crate) async fn start_command(context: &EnvoyContext, actor: ActorId, generation: u32) -> Option<CommandStartActor> {
    pump::start(context, &PendingCommand { actor, generation, index: 0, command: Command::Start }).await
}

/// Feeds an event to its actor as if the present host had just reported it of the present generation.
pub(crate) async fn believe_blindly(scheduler: &Scheduler, actor: ActorId, event: &EventWrapper) {
    let Ok(Some(stored)) = scheduler.actors(&[actor]).await.map(|mut actors| actors.pop().flatten()) else { return };
    let record = &stored.record;
    let Some(host) = record.host().cloned() else { return };
    let (generation, index) = (record.generation, record.last_event_index + 1);
    scheduler.post(actor, Input::Event { host, generation, index, kind: events::kind(event.inner.clone()) });
}
