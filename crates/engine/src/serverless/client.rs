//! The engine's HTTP client: for the endpoints of serverless pools, and within the rules of [`Policy`].
//!
//! Each request has a connection of its own. A start request holds it for as long as its actor runs, and sharing one by HTTP/2
//! would end all actors of a pool with the connection, and stop new ones at the server's limit of streams; a connection kept from
//! an earlier request may just be closing. So there is no pool, and HTTP/1.1 is all that is spoken.
//!
//! Proxies of the environment are not used: behind one the engine could not see which address is connected to.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, LOCATION, REFERER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use protocol::limits;
use tower_service::Service;
use url::Url;

use super::policy::{Blocked, Policy};

/// How the engine names itself to endpoints: with the release whose behaviour it has.
pub(super) const USER_AGENT_HEADER: HeaderValue = HeaderValue::from_static("RivetEngine/2.3.19");
/// The header with the token for connections of hosts.
pub(super) const TOKEN: HeaderName = HeaderName::from_static("x-rivet-token");
pub(super) const ENDPOINT: HeaderName = HeaderName::from_static("x-rivet-endpoint");
pub(super) const POOL_NAME: HeaderName = HeaderName::from_static("x-rivet-pool-name");
pub(super) const NAMESPACE_NAME: HeaderName = HeaderName::from_static("x-rivet-namespace-name");
/// Headers without secrets. Any other may have one: a pool's own headers usually are there for that.
const FOR_ANYBODY: [HeaderName; 5] = [ENDPOINT, POOL_NAME, NAMESPACE_NAME, ACCEPT, USER_AGENT];

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    /// Sent in this order.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    /// The rules forbid it.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// It failed. The text names all causes, the outermost first, one in each line.
    #[error("{0}")]
    Failed(String),
    /// It failed for want of something on this machine, whoever was asked. The text is as for the above.
    #[error("{0}")]
    OwnFault(String),
}

/// Sends requests; clone freely.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    policy: Arc<Policy>,
    plain: HttpClient<HttpConnector<Resolver>, Full<Bytes>>,
    /// Made when it is first needed: the machine's root certificates are read for it.
    secure: OnceLock<HttpClient<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>>,
}

impl Client {
    pub(crate) fn new(policy: Policy) -> Self {
        let policy = Arc::new(policy);
        let plain = HttpClient::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector(&policy));
        Self(Arc::new(Inner { policy, plain, secure: OnceLock::new() }))
    }

    /// The rules of this client.
    pub(crate) fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// Sends a request and follows redirects; returns when the head of the answer is here. The caller sets a deadline. Dropping
    /// this or the answer's body ends the connection.
    pub(super) async fn send(&self, mut call: Call) -> Result<Response<Incoming>, SendError> {
        let max_redirects = self.policy().max_redirects();
        let mut redirects = 0;
        loop {
            self.policy().check_url(&call.url)?;
            let response = self.exchange(&call).await?;
            let Some(target) = redirect_target(&call.url, &response) else { return Ok(response) };
            if redirects == max_redirects {
                return Err(Blocked::Redirects(max_redirects).into());
            }
            redirects += 1;
            call = redirected(call, response.status(), target);
        }
    }

    async fn exchange(&self, call: &Call) -> Result<Response<Incoming>, SendError> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.headers_mut() = call.headers.clone();
        *request.uri_mut() = call.url.as_str().parse().map_err(|error| failed(&call.url, &error))?;
        let sent = match call.url.scheme() {
            "https" => self.secure(&call.url)?.request(request).await,
            _ => self.0.plain.request(request).await,
        };
        sent.map_err(|error| match blocked_cause(&error) {
            Some(blocked) => blocked.into(),
            None => failed(&call.url, &error),
        })
    }

    fn secure(&self, url: &Url) -> Result<&HttpClient<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>, SendError> {
        if let Some(client) = self.0.secure.get() {
            return Ok(client);
        }
        let roots = HttpsConnectorBuilder::new().with_native_roots();
        let roots = roots.map_err(|error| SendError::OwnFault(explained(url, &error)))?;
        let connector = roots.https_only().enable_http1().wrap_connector(connector(&self.0.policy));
        let client = HttpClient::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(self.0.secure.get_or_init(|| client))
    }
}

fn connector(policy: &Arc<Policy>) -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(Resolver(policy.clone()));
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(limits::OUTBOUND_CONNECT_TIMEOUT));
    connector.set_keepalive(Some(limits::TCP_PROBE_AFTER));
    connector.set_keepalive_interval(Some(limits::TCP_PROBE_INTERVAL));
    connector.set_keepalive_retries(Some(limits::TCP_PROBES));
    connector
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
enum Unresolved {
    #[error(transparent)]
    Blocked(#[from] Blocked),
    #[error("the name cannot be resolved")]
    OwnFault(#[source] io::Error),
}

/// Turns a name into the addresses that may be connected to.
#[derive(Clone)]
struct Resolver(Arc<Policy>);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Unresolved;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unresolved>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Unresolved>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let policy = self.0.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found = tokio::net::lookup_host((host, 0)).await;
            let found = found.map_err(|error| match is_want_of_this_machine(&error) {
                true => Unresolved::OwnFault(error),
                false => {
                    tracing::debug!(host, %error, "a host cannot be resolved");
                    Unresolved::Blocked(Blocked::Unresolved(host.to_owned()))
                }
            })?;
            let addresses: Vec<_> = found.map(|address| address.ip()).collect();
            let allowed = policy.filter(host, &addresses)?;
            let addresses: Vec<_> = allowed.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}

/// Where an answer sends the client, if it is a redirect that can be followed.
fn redirect_target(from: &Url, response: &Response<impl Sized>) -> Option<Url> {
    match response.status() {
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {}
        _ => return None,
    }
    let location = response.headers().get(LOCATION)?;
    let mut target = from.join(std::str::from_utf8(location.as_bytes()).ok()?).ok()?;
    target.set_fragment(None);
    Some(target)
}

/// The request that follows a redirect. Statuses 307 and 308 keep method and body; the others ask for something to be got.
fn redirected(call: Call, status: StatusCode, target: Url) -> Call {
    let keeps_body = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let (method, body) = if keeps_body { (call.method, call.body) } else { (Method::GET, Bytes::new()) };
    // Whoever answers at another scheme, host or port is somebody else, and is told no secrets: no header that may be one, and
    // not where the redirect came from.
    let stays = call.url.origin() == target.origin();
    let mut headers = HeaderMap::new();
    for (name, value) in &call.headers {
        if *name != REFERER && (stays || FOR_ANYBODY.contains(name)) {
            headers.append(name, value.clone());
        }
    }
    if stays && let Ok(referer) = HeaderValue::from_str(call.url.as_str()) {
        headers.append(REFERER, referer);
    }
    Call { method, url: target, headers, body }
}

/// The rule that a failed connection attempt has met.
fn blocked_cause(error: &(dyn Error + 'static)) -> Option<Blocked> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(Unresolved::Blocked(blocked)) = error.downcast_ref() {
            return Some(blocked.clone());
        }
        cause = error.source();
    }
    None
}

fn failed(url: &Url, error: &(dyn Error + 'static)) -> SendError {
    let text = explained(url, error);
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(is_want_of_this_machine) {
            return SendError::OwnFault(text);
        }
        cause = error.source();
    }
    SendError::Failed(text)
}

/// Whether there are no more sockets or no more memory to be had.
fn is_want_of_this_machine(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}

fn explained(url: &Url, error: &(dyn Error + 'static)) -> String {
    format!("error sending request for url ({})\n{}", shown(url), causes(error))
}

/// A URL without its query, in which there may be secrets, and not so long that it would crowd out what happened.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let text = url.as_str();
    let beginning = &text[..text.floor_char_boundary(limits::ENDPOINT_URL_SHOWN_MAX_BYTES)];
    if beginning.len() < text.len() { format!("{beginning}...") } else { beginning.to_owned() }
}

/// All causes of an error, the outermost first, one in each line.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push('\n');
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [&str; 7] = ["authorization", "cookie", "host", "x-own", "x-rivet-endpoint", "x-rivet-token", "user-agent"];

    fn call() -> Call {
        let mut headers = HeaderMap::new();
        for name in HEADERS {
            headers.insert(name, HeaderValue::from_static("v"));
        }
        let url = Url::parse("https://a.example/api/start").unwrap();
        Call { method: Method::POST, url, headers, body: Bytes::from_static(b"body") }
    }

    fn follow(status: u16, location: &str) -> Option<Call> {
        let call = call();
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert(LOCATION, HeaderValue::from_str(location).unwrap());
        let target = redirect_target(&call.url, &response)?;
        Some(redirected(call, response.status(), target))
    }

    fn names(call: &Call) -> Vec<&str> {
        call.headers.keys().map(http::HeaderName::as_str).collect()
    }

    #[test]
    fn a_temporary_redirect_keeps_method_body_and_headers() {
        for status in [307, 308] {
            let next = follow(status, "../elsewhere?x=1#part").unwrap();
            assert_eq!((next.method.as_str(), next.url.as_str()), ("POST", "https://a.example/elsewhere?x=1"));
            assert_eq!(next.body, "body");
            assert_eq!(names(&next), [&HEADERS[..], &["referer"]].concat());
            assert_eq!(next.headers[REFERER], "https://a.example/api/start");
        }
    }

    #[test]
    fn the_other_redirects_ask_for_something_to_be_got() {
        for status in [301, 302, 303] {
            let next = follow(status, "/x").unwrap();
            assert_eq!((next.method.as_str(), next.body.len()), ("GET", 0));
        }
        assert!(follow(304, "/x").is_none());
        assert!(follow(302, "http://[").is_none());
    }

    #[test]
    fn another_origin_is_told_no_secrets() {
        for elsewhere in ["https://b.example/", "http://a.example/", "https://a.example:8443/"] {
            assert_eq!(names(&follow(307, elsewhere).unwrap()), ["x-rivet-endpoint", "user-agent"], "{elsewhere}");
        }
        let headers = names(&follow(307, "https://a.example:443/").unwrap()).len();
        assert_eq!(headers, HEADERS.len() + 1, "the port that goes without saying");
    }

    #[test]
    fn errors_show_no_query_and_no_endless_url() {
        let url = Url::parse(&format!("http://h/{}?secret#x", "p".repeat(1_000))).unwrap();
        let SendError::Failed(text) = failed(&url, &Blocked::Redirects(4)) else { panic!("nothing is wrong with this machine") };
        assert!(text.starts_with("error sending request for url (http://h/ppp") && text.len() < 400, "{text}");
        assert!(text.ends_with("...)\nexceeded the maximum of 4 redirects") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_machine_without_sockets_is_no_fault_of_the_endpoint() {
        let url = Url::parse("http://h/start").unwrap();
        let outcome = |number| failed(&url, &Unresolved::OwnFault(io::Error::from_raw_os_error(number)));
        assert!(matches!(outcome(24), SendError::OwnFault(_)));
        assert!(matches!(outcome(111), SendError::Failed(_)));
    }
}
