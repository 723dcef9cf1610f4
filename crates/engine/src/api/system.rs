//! Health, metadata, datacenters, and what a person sees who opens the engine in a browser.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde_json::{Value, json};

use super::{Answer, Context};

/// The published release whose behaviour this engine has; hosts recognise a running engine by the document that carries it.
pub(crate) const COMPATIBLE_VERSION: &str = "2.3.19";

/// The engine is there, and answers as long as it can. What its store cannot do at present is a member more: hosts that look for
/// an engine must find this one all the same, and starting it anew would make no room on its disk.
pub(super) async fn health(State(context): Context) -> Json<Value> {
    let mut health = json!({ "runtime": "engine", "status": "ok", "version": COMPATIBLE_VERSION });
    if let Some(trouble) = context.store.trouble() {
        health["store"] = json!({ "code": trouble.code(), "message": trouble.to_string() });
    }
    Json(health)
}

pub(super) async fn metadata() -> Json<Value> {
    Json(json!({
        "runtime": "engine",
        "version": COMPATIBLE_VERSION,
        "implementation": concat!("independent-rust/", env!("CARGO_PKG_VERSION")),
        "git_sha": "unknown",
        "build_timestamp": "unknown",
        "rustc_version": "unknown",
        "rustc_host": std::env::consts::ARCH,
        "cargo_target": std::env::consts::ARCH,
        "cargo_profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "epoxy_protocol_version": 3,
        "envoy_protocol_version": protocol::envoy::PROTOCOL_VERSION,
    }))
}

pub(super) async fn datacenters(State(context): Context, headers: HeaderMap) -> Answer {
    context.authorize(&headers)?;
    let mut datacenters = Vec::new();
    for (name, datacenter) in &context.topology.datacenters {
        datacenters.push(json!({
            "label": datacenter.datacenter_label,
            "name": name,
            "url": datacenter.public_url.as_str(),
        }));
    }
    Ok(Json(json!({ "datacenters": datacenters, "pagination": { "cursor": null } })))
}

pub(super) async fn root() -> Response {
    Redirect::permanent("/ui/").into_response()
}

pub(super) async fn ui() -> Html<&'static str> {
    Html(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>rivet-engine</title>\
         <h1>rivet-engine is running</h1>\
         <p>This independent engine has no dashboard yet. The management API answers on this port: \
         <a href=\"/health\">/health</a>, <a href=\"/envoys?namespace=default\">hosts</a>, \
         <a href=\"/runner-configs?namespace=default\">pools</a>.</p></html>",
    )
}
