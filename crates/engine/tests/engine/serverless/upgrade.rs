//! Hosts of several versions in one serverless pool (`spec/scheduling.md` 8.1).

use std::time::Duration;

use lifecycle::version::LOWER_READINGS;
use protocol::envoy::{StopActorReason, ToRivet};
use serde_json::json;
use testkit::envoy::EnvoyParams;

use super::endpoint::document;
use super::{Scene, answer_and_run};

const A_WHILE: Duration = Duration::from_millis(200);

async fn report_version(scene: &Scene, version: u32) {
    scene.endpoint.set_metadata(200, document(version));
    let refreshed = scene.engine.post("/runner-configs/default/refresh-metadata?namespace=default", &json!({})).await;
    assert_eq!(refreshed.json(), json!({}));
}

#[tokio::test]
async fn what_the_endpoint_starts_on_an_older_host_stays_there() {
    let mut scene = Scene::start().await;
    let mut old = scene.host().await;
    let (run, stream) = scene.running_actor(&mut old).await;
    report_version(&scene, 2).await;
    assert_eq!(old.expect_stop(&run).await, (1, StopActorReason::GoingAway));
    old.stopped(&run);
    stream.stopping();
    // The platform still sends some requests to processes of the old deployment.
    let call = scene.endpoint.next_start().await;
    let (again, _stream) = answer_and_run(call, &mut old);
    assert_eq!((&again.actor_id, again.generation), (&run.actor_id, 2));
    scene.until_running(&run.actor_id).await;
    old.expect_no_command(A_WHILE).await;
    // Unless that process ends.
    old.send(&ToRivet::Stopping);
    assert_eq!(old.expect_stop(&again).await, (1, StopActorReason::GoingAway));
}

#[tokio::test]
async fn a_newer_host_alone_drains_nothing_and_an_older_report_ends_a_drain() {
    let mut scene = Scene::with(json!({}), json!({ "actor_eviction_delay": 1 })).await;
    let mut old = scene.host().await;
    let (_run, _stream) = scene.running_actor(&mut old).await;
    let _newer = scene.engine.host_with(&EnvoyParams::new().version(2)).await;
    old.expect_no_command(A_WHILE).await;
    // Rolled out, and rolled back before anybody had to go.
    report_version(&scene, 2).await;
    for _reading in 0..LOWER_READINGS {
        report_version(&scene, 1).await;
    }
    old.expect_no_command(Duration::from_millis(1200)).await;
}

#[tokio::test]
async fn processes_of_both_versions_behind_one_address_move_an_actor_once() {
    let mut scene = Scene::start().await;
    let mut old = scene.host().await;
    let (run, stream) = scene.running_actor(&mut old).await;
    report_version(&scene, 2).await;
    assert_eq!(old.expect_stop(&run).await, (1, StopActorReason::GoingAway));
    old.stopped(&run);
    stream.stopping();
    // An old process answers once more, and says what it is.
    let call = scene.endpoint.next_start().await;
    let (again, _stream) = answer_and_run(call, &mut old);
    scene.until_running(&again.actor_id).await;
    for version in [1, 2, 1, 2] {
        report_version(&scene, version).await;
    }
    old.expect_no_command(A_WHILE).await;
    // Another endpoint is another story: what the first one ran says nothing about it.
    scene.endpoint.set_metadata(200, document(1));
    scene.configure(json!({ "headers": { "x-deployment": "another" } })).await;
    report_version(&scene, 2).await;
    assert_eq!(old.expect_stop(&again).await, (1, StopActorReason::GoingAway));
}
