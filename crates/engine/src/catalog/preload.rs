//! What the hosts of an actor name want to have at its start: the member `preload` of the name's metadata
//! (`spec/scheduling.md` 10).

use actor_data::preload::{Manifest, PreloadPrefix};
use protocol::id::NamespaceId;
use protocol::limits;
use serde::Deserialize;
use store::StoreError;

use super::Catalog;
use crate::records::actor_name;

#[derive(Deserialize)]
struct Metadata {
    preload: Option<Declared>,
}

#[derive(Deserialize)]
struct Declared {
    #[serde(default)]
    keys: Vec<Vec<u8>>,
    #[serde(default)]
    prefixes: Vec<DeclaredPrefix>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeclaredPrefix {
    prefix: Vec<u8>,
    max_bytes: u64,
    #[serde(default)]
    partial: bool,
}

impl Catalog {
    /// What is to be preloaded for actors of this name; none if its metadata says nothing that can be understood.
    ///
    /// # Errors
    /// If the metadata cannot be read.
    pub(crate) async fn preload_manifest(&self, namespace: NamespaceId, name: &str) -> Result<Option<Manifest>, StoreError> {
        let metadata = self.store.get(vec![actor_name::key(namespace, name)]).await?.pop().flatten();
        let Some(metadata) = metadata else { return Ok(None) };
        let manifest = parse(&metadata);
        if let Err(error) = &manifest {
            tracing::warn!(actor_name = name, %error, "what an actor name declares to be preloaded is ignored");
        }
        Ok(manifest.ok().flatten())
    }
}

/// Why a declaration is ignored.
#[derive(Debug, thiserror::Error)]
enum Misdeclared {
    /// Not even looked at, because it would be at every start.
    #[error("the metadata of the name has more than {} bytes", limits::PRELOAD_METADATA_MAX_BYTES)]
    MetadataTooLarge,
    #[error(transparent)]
    NotUnderstood(#[from] serde_json::Error),
    #[error(transparent)]
    TooLarge(#[from] actor_data::preload::ManifestTooLarge),
}

fn parse(metadata: &[u8]) -> Result<Option<Manifest>, Misdeclared> {
    if metadata.len() > limits::PRELOAD_METADATA_MAX_BYTES {
        return Err(Misdeclared::MetadataTooLarge);
    }
    let Some(declared) = serde_json::from_slice::<Metadata>(metadata)?.preload else { return Ok(None) };
    let keys = declared.keys.into_iter().map(Into::into).collect();
    let mut prefixes = Vec::with_capacity(declared.prefixes.len());
    for DeclaredPrefix { prefix, max_bytes, partial } in declared.prefixes {
        prefixes.push(PreloadPrefix { prefix: prefix.into(), max_bytes, partial });
    }
    Ok(Some(Manifest::new(keys, prefixes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(metadata: &str) -> Option<Manifest> {
        parse(metadata.as_bytes()).unwrap()
    }

    #[test]
    fn a_manifest_of_an_older_host_is_understood() {
        let metadata = r#"{ "icon": "x", "preload": {
            "keys": [[1], [3], [5, 1, 1], [255, 0]],
            "prefixes": [
                { "prefix": [6, 1], "maxBytes": 131072, "partial": false },
                { "prefix": [2], "maxBytes": 0, "partial": true, "comment": "of a newer version" },
                { "prefix": [], "maxBytes": 18446744073709551615 }
            ]
        } }"#;
        let manifest = parsed(metadata).unwrap();
        assert_eq!(manifest.keys(), [&[1][..], &[3], &[5, 1, 1], &[255, 0]]);
        let prefixes: Vec<_> =
            manifest.prefixes().iter().map(|asked| (asked.prefix.to_vec(), asked.max_bytes, asked.partial)).collect();
        assert_eq!(prefixes, [(vec![6, 1], 131_072, false), (vec![2], 0, true), (vec![], u64::MAX, false)]);
        assert_eq!(parsed(r#"{ "preload": {} }"#), Some(Manifest::new(vec![], vec![]).unwrap()));
    }

    #[test]
    fn what_is_no_manifest_is_ignored() {
        assert_eq!(parsed("{}"), None);
        assert_eq!(parsed(r#"{ "preload": null, "icon": "x" }"#), None);
        for wrong in [
            r#"{ "preload": 1 }"#.to_owned(),
            r#"{ "preload": { "keys": ["AQ=="] } }"#.to_owned(),
            r#"{ "preload": { "keys": [[256]] } }"#.to_owned(),
            r#"{ "preload": { "prefixes": [{ "prefix": [1] }] } }"#.to_owned(),
            r#"{ "preload": { "prefixes": [{ "prefix": [1], "maxBytes": -1 }] } }"#.to_owned(),
            format!(r#"{{ "preload": {{ "keys": [{}[1]] }} }}"#, "[1],".repeat(512)),
            format!(r#"{{ "preload": {{}}, "icon": "{}" }}"#, "x".repeat(limits::PRELOAD_METADATA_MAX_BYTES)),
        ] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
