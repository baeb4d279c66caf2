//! The three clouds' metadata services, as small HTTP servers on loopback that insist on what the real ones insist on.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

/// One request: method, path, headers with lower-case names.
struct Request {
    line: String,
    headers: HashMap<String, String>,
}

fn receive(stream: &TcpStream) -> Request {
    let mut lines = BufReader::new(stream).lines().map(|line| line.unwrap());
    let line = lines.next().unwrap_or_default();
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())))
        .collect();
    Request { line: line.rsplit_once(" HTTP/").unwrap_or_default().0.to_owned(), headers }
}

/// Serves until the process ends; `None` is 404.
fn serve(answer: impl Fn(&Request) -> Option<String> + Send + 'static) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = receive(&stream);
            let text = match answer(&request) {
                Some(body) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
                None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(text.as_bytes());
        }
    });
    Endpoint(address)
}

fn check(facts: &Attributes, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        let found = facts.iter().find(|(found, _)| &**found == *name).map(|(_, value)| &**value);
        assert_eq!(found, Some(*value), "{name} in {facts:#?}");
    }
}

#[test]
fn aws_is_asked_with_a_token() {
    let endpoint = serve(|request| {
        if request.line == "PUT /latest/api/token" {
            let lifetime: u32 = request.headers["x-aws-ec2-metadata-token-ttl-seconds"].parse().unwrap();
            return (1..=21600).contains(&lifetime).then(|| "AQAEAtoken==".into());
        }
        if request.headers.get("x-aws-ec2-metadata-token").map(String::as_str) != Some("AQAEAtoken==") {
            return None;
        }
        Some(match request.line.strip_prefix("GET ")? {
            "/latest/dynamic/instance-identity/document" => {
                r#"{"accountId": "123456789012", "architecture": "x86_64", "availabilityZone": "eu-west-1b", "imageId": "ami-0abc",
                    "instanceId": "i-0123456789abcdef0", "instanceType": "m5.large", "kernelId": null, "privateIp": "10.0.0.7",
                    "region": "eu-west-1", "version": "2017-09-30"}"#.into()
            }
            "/latest/meta-data/local-hostname" => "ip-10-0-0-7.eu-west-1.compute.internal".into(),
            "/latest/meta-data/security-groups" => "default\nweb".into(),
            "/latest/meta-data/placement/availability-zone-id" => "euw1-az2".into(),
            _ => return None,
        })
    });
    let facts = read(Environment::Aws, endpoint).unwrap();
    check(
        &facts,
        &[
            ("cloud.provider", "aws"),
            ("cloud.region", "eu-west-1"),
            ("host.type", "m5.large"),
            ("ec2.instance_id", "i-0123456789abcdef0"),
            ("ec2.placement.region", "eu-west-1"),
            ("ec2.placement.availability_zone_id", "euw1-az2"),
            ("ec2.security_groups", "default,web"),
        ],
    );
    assert!(
        !facts.iter().any(|(name, _)| matches!(&**name, "ec2.public_ipv4" | "ec2.kernel_id")),
        "{facts:?}"
    );
}

#[test]
fn azure_is_asked_with_its_header() {
    let endpoint = serve(|request| {
        let right = request.headers.get("metadata").map(String::as_str) == Some("true")
            && request.line.starts_with("GET /metadata/instance?api-version=");
        right.then(|| {
            r#"{"compute": {"azEnvironment": "AzurePublicCloud", "location": "westeurope", "name": "vm1", "offer": "debian-12",
                "osType": "Linux", "publisher": "Debian", "sku": "12", "subscriptionId": "sub", "tags": "a:b;c:d", "version": "0.1",
                "vmId": "02aab8a4", "vmSize": "Standard_D2s_v3", "zone": "1"},
                "network": {"interface": [{"ipv4": {"ipAddress": [{"privateIpAddress": "10.1.0.4", "publicIpAddress": "192.0.2.9"}]},
                "ipv6": {"ipAddress": []}}]}}"#.into()
        })
    });
    let facts = read(Environment::Azure, endpoint).unwrap();
    check(
        &facts,
        &[
            ("cloud.provider", "azure"),
            ("cloud.region", "westeurope"),
            ("host.type", "Standard_D2s_v3"),
            ("azure.compute.vmid", "02aab8a4"),
            ("azure.compute.environment", "AzurePublicCloud"),
            ("profiling.instance.private_ipv4s", "10.1.0.4"),
            ("profiling.instance.public_ipv4s", "192.0.2.9"),
        ],
    );
}

#[test]
fn google_is_asked_with_its_flavor() {
    let endpoint = serve(|request| {
        let right = request.headers.get("metadata-flavor").map(String::as_str) == Some("Google");
        right.then(|| {
            r#"{"id": 4520031799277581759, "name": "g1", "hostname": "g1.c.p.internal", "image": "projects/debian-cloud/global/images/d12",
                "cpuPlatform": "AMD Rome", "description": "", "machineType": "projects/42/machineTypes/e2-medium", "tags": ["http", "ssh"],
                "zone": "projects/42/zones/europe-west1-b",
                "networkInterfaces": [{"ip": "10.132.0.2", "accessConfigs": [{"externalIp": "192.0.2.7", "type": "ONE_TO_ONE_NAT"}]}]}"#.into()
        })
    });
    let facts = read(Environment::Gcp, endpoint).unwrap();
    check(
        &facts,
        &[
            ("cloud.provider", "gcp"),
            ("cloud.region", "europe-west1"),
            ("cloud.availability_zone", "europe-west1-b"),
            ("host.type", "e2-medium"),
            ("gce.instance.id", "4520031799277581759"),
            ("gce.instance.tags", "http,ssh"),
            ("profiling.instance.public_ipv4s", "192.0.2.7"),
        ],
    );
}

#[test]
fn elsewhere_nobody_is_asked() {
    let endpoint = serve(|request| panic!("asked for {}", request.line));
    for environment in [Environment::Hardware, Environment::Kvm, Environment::Docker, Environment::Lxc] {
        assert_eq!(read(environment, endpoint).unwrap(), Attributes::new());
    }
}

#[test]
fn services_that_misbehave_are_left_alone() {
    let wrong = [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}",
        "nonsense",
        "",
    ];
    for text in wrong {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint(listener.local_addr().unwrap());
        let service = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            receive(&stream);
            let _ = stream.write_all(text.as_bytes());
        });
        assert!(read(Environment::Azure, endpoint).is_err(), "{text}");
        service.join().unwrap();
    }
    // One that never ends.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint(listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        receive(&stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b' '; 4096]).is_ok() {}
    });
    assert!(read(Environment::Gcp, endpoint).is_err());
    // Nobody there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(read(Environment::Aws, Endpoint(nobody)).is_err());
}
