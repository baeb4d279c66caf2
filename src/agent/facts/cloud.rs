//! What a cloud says about this instance: AWS (IMDSv2), Azure, Google.
//!
//! Field names are those of the hosts index (`ec2.*`, `azure.compute.*`, `gce.instance.*`), beside them OpenTelemetry's.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;

use super::Attributes;
use super::http::request;
use crate::agent::host::Environment;

/// Longest value that is believed, in bytes.
const MAX_VALUE_BYTES: usize = 1024;

/// Where the metadata service answers: the same link-local address in all three.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint(pub(super) SocketAddr);

impl Default for Endpoint {
    fn default() -> Self {
        Self(SocketAddr::from(([169, 254, 169, 254], 80)))
    }
}

/// Asks the service of the cloud that the firmware named. Nothing is asked anywhere else.
pub(super) fn read(environment: Environment, endpoint: Endpoint) -> io::Result<Attributes> {
    match environment {
        Environment::Aws => aws(endpoint),
        Environment::Azure => azure(endpoint),
        Environment::Gcp => google(endpoint),
        Environment::Hardware | Environment::Lxc | Environment::Kvm | Environment::Docker => {
            Ok(Attributes::new())
        }
    }
}

/// Attributes under construction.
#[derive(Default)]
struct Found(Attributes);

impl Found {
    fn add(&mut self, name: &str, value: &str) {
        let value = &value[..value.floor_char_boundary(MAX_VALUE_BYTES)];
        if !value.is_empty() {
            self.0.push((name.into(), value.into()));
        }
    }

    /// Scalars of `from` by key.
    fn add_all(&mut self, prefix: &str, from: &Value, keys: &[(&str, &str)]) {
        for (key, name) in keys {
            self.add(&format!("{prefix}{name}"), &text(&from[*key]));
        }
    }
}

/// A scalar as text, a list with commas.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(is) => is.to_string(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Null | Value::Object(_) => String::new(),
    }
}

fn json(body: &str) -> io::Result<Value> {
    serde_json::from_str(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Behind the last slash: `projects/1/zones/europe-west1-b`.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn aws(Endpoint(address): Endpoint) -> io::Result<Attributes> {
    let lifetime = [("X-aws-ec2-metadata-token-ttl-seconds", "60")];
    let token = request(address, "PUT", "/latest/api/token", &lifetime)?;
    let token = token.trim();
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "token with strange characters"));
    }
    let get = |path: &str| request(address, "GET", path, &[("X-aws-ec2-metadata-token", token)]);
    let document = json(&get("/latest/dynamic/instance-identity/document")?)?;
    let mut found = Found::default();
    found.add("cloud.provider", "aws");
    found.add_all(
        "",
        &document,
        &[
            ("region", "cloud.region"),
            ("availabilityZone", "cloud.availability_zone"),
            ("accountId", "cloud.account.id"),
            ("instanceType", "host.type"),
            ("imageId", "host.image.id"),
            ("privateIp", "profiling.instance.private_ipv4s"),
        ],
    );
    found.add_all(
        "ec2.",
        &document,
        &[
            ("imageId", "ami_id"),
            ("instanceId", "instance_id"),
            ("instanceType", "instance_type"),
            ("kernelId", "kernel_id"),
            ("privateIp", "local_ipv4"),
            ("region", "placement.region"),
            ("availabilityZone", "placement.availability_zone"),
        ],
    );
    for (path, name) in [
        ("hostname", "ec2.hostname"),
        ("local-hostname", "ec2.local_hostname"),
        ("public-hostname", "ec2.public_hostname"),
        ("public-ipv4", "ec2.public_ipv4"),
        ("public-ipv4", "profiling.instance.public_ipv4s"),
        ("mac", "ec2.mac"),
        ("instance-life-cycle", "ec2.instance_life_cycle"),
        ("placement/availability-zone-id", "ec2.placement.availability_zone_id"),
        ("ami-manifest-path", "ec2.ami_manifest_path"),
        ("security-groups", "ec2.security_groups"),
        ("product-codes", "ec2.product_codes"),
    ] {
        // Not every instance has each: a machine without public address answers 404.
        if let Ok(value) = get(&format!("/latest/meta-data/{path}")) {
            found.add(name, &value.trim().replace('\n', ","));
        }
    }
    Ok(found.0)
}

fn azure(Endpoint(address): Endpoint) -> io::Result<Attributes> {
    let answer =
        request(address, "GET", "/metadata/instance?api-version=2021-02-01", &[("Metadata", "true")])?;
    let instance = json(&answer)?;
    let compute = &instance["compute"];
    let mut found = Found::default();
    found.add("cloud.provider", "azure");
    found.add_all(
        "",
        compute,
        &[
            ("location", "cloud.region"),
            ("zone", "cloud.availability_zone"),
            ("subscriptionId", "cloud.account.id"),
            ("vmSize", "host.type"),
        ],
    );
    found.add_all(
        "azure.compute.",
        compute,
        &[
            ("sku", "sku"),
            ("name", "name"),
            ("zone", "zone"),
            ("vmId", "vmid"),
            ("tags", "tags"),
            ("offer", "offer"),
            ("vmSize", "vmsize"),
            ("osType", "ostype"),
            ("version", "version"),
            ("location", "location"),
            ("publisher", "publisher"),
            ("azEnvironment", "environment"),
            ("subscriptionId", "subscriptionid"),
        ],
    );
    for (family, kind) in [("ipv4", "ipv4s"), ("ipv6", "ipv6s")] {
        for (key, side) in [("privateIpAddress", "private"), ("publicIpAddress", "public")] {
            let interfaces = instance["network"]["interface"].as_array().into_iter().flatten();
            let addresses = interfaces
                .flat_map(|interface| interface[family]["ipAddress"].as_array().into_iter().flatten())
                .map(|address| text(&address[key]))
                .filter(|address| !address.is_empty());
            let addresses: Vec<String> = addresses.collect();
            found.add(&format!("profiling.instance.{side}_{kind}"), &addresses.join(","));
        }
    }
    Ok(found.0)
}

fn google(Endpoint(address): Endpoint) -> io::Result<Attributes> {
    let path = "/computeMetadata/v1/instance/?recursive=true";
    let instance = json(&request(address, "GET", path, &[("Metadata-Flavor", "Google")])?)?;
    let zone = text(&instance["zone"]);
    let mut found = Found::default();
    found.add("cloud.provider", "gcp");
    found.add("cloud.availability_zone", last(&zone));
    found.add("cloud.region", last(&zone).rsplit_once('-').map_or("", |(region, _)| region));
    // `projects/NUMBER/zones/ZONE`
    found.add("cloud.account.id", zone.split('/').nth(1).unwrap_or_default());
    found.add("host.type", last(&text(&instance["machineType"])));
    found.add_all(
        "gce.instance.",
        &instance,
        &[
            ("id", "id"),
            ("cpuPlatform", "cpu_platform"),
            ("description", "description"),
            ("hostname", "hostname"),
            ("image", "image"),
            ("machineType", "machine_type"),
            ("name", "name"),
            ("tags", "tags"),
            ("zone", "zone"),
        ],
    );
    let interfaces = || instance["networkInterfaces"].as_array().into_iter().flatten();
    let private: Vec<String> = interfaces().map(|interface| text(&interface["ip"])).collect();
    let public: Vec<String> = interfaces()
        .flat_map(|interface| interface["accessConfigs"].as_array().into_iter().flatten())
        .map(|access| text(&access["externalIp"]))
        .filter(|address| !address.is_empty())
        .collect();
    found.add("profiling.instance.private_ipv4s", &private.join(","));
    found.add("profiling.instance.public_ipv4s", &public.join(","));
    Ok(found.0)
}

#[cfg(test)]
mod tests;
