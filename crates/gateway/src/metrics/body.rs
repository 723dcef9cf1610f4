//! The body of an answer, counted as it goes out.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{OpenRequest, RequestResult};
use crate::admission::Slot;
use crate::handler::{GatewayBody, StreamCut};

/// An answer's body, and the request that ends with it. Bytes are counted when the client's connection takes them, so that
/// those of a stream count, and those before an abort.
pub struct MeasuredBody {
    body: GatewayBody,
    request: Option<OpenRequest>,
    _slot: Slot,
}

impl MeasuredBody {
    /// The answer to a request for an actor.
    pub(crate) fn answering(body: GatewayBody, request: OpenRequest, slot: Slot) -> Self {
        Self { body, request: Some(request), _slot: slot }
    }
}

/// Nobody counts it.
impl From<GatewayBody> for MeasuredBody {
    fn from(body: GatewayBody) -> Self {
        Self { body, request: None, _slot: Slot::default() }
    }
}

impl Body for MeasuredBody {
    type Data = Bytes;
    type Error = StreamCut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamCut>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(request) = &mut self.request {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    request.handed_over(frame.data_ref().map_or(0, Bytes::len));
                }
                Poll::Ready(Some(Err(cut))) => request.ends(cut.result),
                Poll::Ready(None) => request.ends(RequestResult::Success),
                Poll::Pending => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for MeasuredBody {
    fn drop(&mut self) {
        if let Some(request) = &mut self.request
            && self.body.is_end_stream()
        {
            request.ends(RequestResult::Success);
        }
    }
}
