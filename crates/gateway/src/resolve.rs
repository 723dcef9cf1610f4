//! Which actor a request means, and whether its client may ask for more of it.

use http::{Method, Request, Uri};
use protocol::id::ActorId;
use tokio::time::{Instant, timeout_at};

use crate::admission::{Admission, Excess, Slot};
use crate::client_address::ClientAddress;
use crate::directory::{ActorQuery, Directory, QueryMethod, Refusal};
use crate::error::GatewayError;
use crate::handler::{RequestInfo, Shared};
use crate::ready::Watched;
use crate::target::Addressed;

/// Who asks for what.
pub(crate) struct Caller {
    pub(crate) client: ClientAddress,
    method: Method,
    uri: Uri,
}

impl Caller {
    pub(crate) fn of<B>(request: &Request<B>, info: &RequestInfo, admission: &Admission) -> Self {
        let client = admission.client(info.peer, request.headers());
        Self { client, method: request.method().clone(), uri: request.uri().clone() }
    }

    fn refused(&self, excess: Excess) -> GatewayError {
        let method = self.method.clone();
        let path = self.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let ip = self.client.ip;
        match excess {
            Excess::Rate { limit, retry_after } => GatewayError::RateLimit {
                method,
                path,
                ip,
                requests: limit.requests,
                period_ms: limit.period.as_millis() as u64,
                // Rounded up: who comes back any earlier is refused again.
                retry_after_seconds: retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0),
            },
            Excess::InFlight { max } => GatewayError::MaxInFlight { method, path, ip, max_in_flight: max },
        }
    }
}

impl<D: Directory> Shared<D> {
    /// Resolves what a request addresses to an actor that is being watched, and takes a slot for the request. What exceeds
    /// the client's limits is refused before anything is created or woken (`spec/gateway.md` 10.3).
    pub(crate) async fn find(&self, addressed: Addressed, caller: &Caller, slot: &mut Slot) -> Result<Watched, GatewayError> {
        *slot = self.admission.enter(caller.client).map_err(|excess| caller.refused(excess))?;
        let actor = match addressed {
            Addressed::Direct { actor_id } => {
                let actor = actor_id.parse::<ActorId>().map_err(|_| GatewayError::ActorNotFound)?;
                slot.at_actor(actor).map_err(|excess| caller.refused(excess))?;
                actor
            }
            Addressed::Query(query) => self.resolve(query, caller, slot).await?,
        };
        Watched::new(&*self.directory, actor).await
    }

    async fn resolve(&self, query: ActorQuery, caller: &Caller, slot: &mut Slot) -> Result<ActorId, GatewayError> {
        let deadline = Instant::now() + self.config.resolve_timeout;
        if let Some(actor) = self.in_time(deadline, self.directory.find(&query)).await? {
            slot.at_actor(actor).map_err(|excess| caller.refused(excess))?;
            return Ok(actor);
        }
        match query.method {
            QueryMethod::Get => return Err(GatewayError::ActorNotFound),
            QueryMethod::GetOrCreate { .. } => {}
        }
        slot.at_key(&query).map_err(|excess| caller.refused(excess))?;
        let actor = self.in_time(deadline, self.directory.create(query)).await?;
        slot.created(actor);
        Ok(actor)
    }

    async fn in_time<T>(&self, deadline: Instant, asked: impl Future<Output = Result<T, Refusal>>) -> Result<T, GatewayError> {
        match timeout_at(deadline, asked).await {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(GatewayError::ResolveTimeout { elapsed_ms: self.config.resolve_timeout.as_millis() as u64 }),
        }
    }
}
