//! The bill of materials: every crate that is linked in, with version, licence and checksum, as CycloneDX 1.5.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::static_binary::host;
use super::{Release, output};
use crate::cargo::cargo;

/// Writes it.
pub fn write(root: &Path, release: &Release, path: &Path) -> Result<PathBuf> {
    let metadata = output(cargo().current_dir(root).args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        &host()?,
    ]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?;
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let mut text = serde_json::to_string_pretty(&bill(&metadata, &checksums(&lock), release)?)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_owned())
}

fn bill(
    metadata: &Value,
    checksums: &BTreeMap<(String, String), String>,
    release: &Release,
) -> Result<Value> {
    let packages: BTreeMap<&str, &Value> =
        list(&metadata["packages"]).filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let (&tcptrace, _) =
        packages.iter().find(|(_, package)| package["name"] == "tcptrace").context("there is no tcptrace")?;
    // What only tests or build scripts use is in no binary.
    let mut linked = BTreeSet::new();
    let mut waiting = vec![tcptrace];
    while let Some(id) = waiting.pop() {
        if linked.insert(id) {
            let dependencies = nodes.get(id).map_or(&Value::Null, |node| &node["deps"]);
            waiting.extend(
                list(dependencies).filter(|one| is_linked(one)).filter_map(|one| one["pkg"].as_str()),
            );
        }
    }
    linked.remove(tcptrace);
    let reference = |id: &str| packages.get(id).map_or_else(|| id.to_owned(), |package| purl(package));
    let mut components: Vec<Value> = linked
        .iter()
        .filter_map(|id| packages.get(id))
        .map(|package| component(package, checksums))
        .collect();
    components.sort_by_key(|component| component["purl"].to_string());
    let mut dependencies: Vec<Value> = linked
        .iter()
        .chain([&tcptrace])
        .filter_map(|id| nodes.get(id))
        .map(|node| {
            let on: BTreeSet<String> = list(&node["deps"])
                .filter(|one| is_linked(one))
                .filter_map(|one| one["pkg"].as_str())
                .map(reference)
                .collect();
            json!({ "ref": reference(node["id"].as_str().unwrap_or_default()), "dependsOn": on })
        })
        .collect();
    dependencies.sort_by_key(|one| one["ref"].to_string());
    let mut this = component(packages[tcptrace], checksums);
    this["type"] = json!("application");
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": this,
            "properties": [{ "name": "source-date-epoch", "value": release.epoch.to_string() }],
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Of kind "normal", which cargo writes as null.
fn is_linked(dependency: &Value) -> bool {
    list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null())
}

fn purl(package: &Value) -> String {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    format!("pkg:cargo/{}@{}", text("name"), text("version"))
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": text("name"),
        "version": text("version"),
        "purl": purl(package),
        // Older crates write "MIT/Apache-2.0".
        "licenses": [{ "expression": text("license").replace(" / ", " OR ").replace('/', " OR ") }],
    });
    if let Some(checksum) = checksums.get(&(text("name"), text("version"))) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

/// Name and version → checksum, from Cargo.lock.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let value = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
            line.strip_suffix('"').map(str::to_owned)
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_is_billed() {
        let package =
            |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let on = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("tcptrace"), package("aya"), package("object"), package("proptest"), package("cc")],
            "resolve": { "nodes": [
                { "id": "tcptrace", "deps": [on("aya", Value::Null), on("proptest", json!("dev"))] },
                { "id": "aya", "deps": [on("object", Value::Null), on("cc", json!("build"))] },
                { "id": "object", "deps": [] },
            ] },
        });
        let lock = "[[package]]\nname = \"aya\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n";
        let release = Release { version: "1".to_owned(), arch: "x86_64".to_owned(), epoch: 7 };
        let bill = bill(&metadata, &checksums(lock), &release).unwrap();
        let names: Vec<_> = list(&bill["components"]).map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["aya", "object"]);
        assert_eq!(bill["components"][0]["hashes"][0]["content"], "ab");
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["metadata"]["component"]["name"], "tcptrace");
    }
}
