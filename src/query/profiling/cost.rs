//! What samples cost a year, in money and in CO2, if they went on like this.

use super::carbon;
use crate::store::HostFacts;

/// Seconds of a year of 365 days.
const YEAR_S: f64 = 31_536_000.0;
/// Kilowatts of a core of unknown kind.
const KW_PER_CORE: f64 = 0.007;

/// Prices and factors of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Multiplier of prices at AWS.
    pub aws_cost_factor: f64,
    /// Multiplier of prices at Azure.
    pub azure_cost_factor: f64,
    /// US dollars of an hour of one core where no price is known.
    pub cost_per_core_hour: f64,
    /// Tons of CO2 per kWh where the region is not known.
    pub co2_per_kwh: f64,
    /// Energy of the building per energy of the machine where the provider is not known.
    pub datacenter_pue: f64,
    /// Watts of a core.
    pub per_core_watt_x86: f64,
    /// Watts of a core.
    pub per_core_watt_arm64: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            aws_cost_factor: 1.0,
            azure_cost_factor: 1.0,
            cost_per_core_hour: 0.0425,
            co2_per_kwh: 0.000_379_069,
            datacenter_pue: 1.7,
            per_core_watt_x86: 7.0,
            per_core_watt_arm64: 2.8,
        }
    }
}

/// Money and CO2 of a year.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Annual {
    /// Metric tons.
    pub co2_tons: f64,
    /// US dollars.
    pub costs_usd: f64,
}

impl std::ops::AddAssign for Annual {
    fn add_assign(&mut self, other: Self) {
        self.co2_tons += other.co2_tons;
        self.costs_usd += other.costs_usd;
    }
}

/// Where and on what a host runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Machine {
    provider: String,
    region: String,
    arch: String,
}

impl Machine {
    fn of(host: &HostFacts) -> Self {
        let arch = host.get("host.arch").or_else(|| host.get("profiling.host.machine"));
        let (provider, region) = place(host);
        Self { provider, region, arch: arch.unwrap_or_default().to_owned() }
    }
}

/// Provider and region from whichever facts are there.
fn place(host: &HostFacts) -> (String, String) {
    let both = |provider: &str, region: &str| (provider.to_owned(), region.to_owned());
    if let Some(provider) = host.get("cloud.provider") {
        return both(provider, host.get("cloud.region").unwrap_or_default());
    }
    if let Some(region) = host.get("ec2.placement.region") {
        return both("aws", region);
    }
    if let Some(zone) = host.get("gce.instance.zone") {
        let zone = zone.rsplit('/').next().unwrap_or_default();
        let region: Vec<&str> = zone.split('-').take(2).collect();
        return both("gcp", &region.join("-"));
    }
    if let Some(region) = host.get("azure.compute.location") {
        return both("azure", region);
    }
    let tags = host.get("profiling.host.tags").unwrap_or_default();
    let tag = |name: &str| tags.split(';').find_map(|tag| tag.trim().strip_prefix(name)).unwrap_or_default();
    both(tag("cloud_provider:"), tag("cloud_region:"))
}

/// Money and CO2 of events at one frequency over some seconds.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Prices and factors.
    pub prices: Prices,
    /// Seconds in which the events happened.
    pub duration_s: f64,
    /// Events per second of a busy core.
    pub frequency_hz: u32,
}

impl Rates {
    fn annual_core_hours(&self, events: u64) -> f64 {
        let duration = if self.duration_s > 0.0 { self.duration_s } else { 1.0 };
        (YEAR_S / duration) * events as f64 / f64::from(self.frequency_hz.max(1)) / 3600.0
    }

    /// What events on a host cost; `None` is a host that nobody told of.
    ///
    /// There is no price list here, so prices are those of the request.
    #[must_use]
    pub fn annual(&self, host: Option<&HostFacts>, events: u64) -> Annual {
        let (prices, hours) = (&self.prices, self.annual_core_hours(events));
        let machine = host.map(Machine::of);
        let kw = machine.as_ref().map_or(KW_PER_CORE, |machine| match machine.arch.as_str() {
            "arm64" | "aarch64" => prices.per_core_watt_arm64 / 1000.0,
            "amd64" | "x86_64" => prices.per_core_watt_x86 / 1000.0,
            _ => KW_PER_CORE,
        });
        let machine = machine.unwrap_or_default();
        let tons = carbon::tons_per_kwh(&machine.provider, &machine.region).unwrap_or(prices.co2_per_kwh);
        let (pue, factor) = match machine.provider.as_str() {
            "aws" => (1.135, prices.aws_cost_factor),
            "gcp" => (1.1, 1.0),
            "azure" => (1.185, prices.azure_cost_factor),
            _ => (prices.datacenter_pue, 1.0),
        };
        Annual { co2_tons: kw * tons * hours * pue, costs_usd: hours * prices.cost_per_core_hour * factor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(facts: &[(&str, &str)]) -> HostFacts {
        let facts = facts.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        HostFacts { id: "h".into(), facts }
    }

    fn rates(frequency_hz: u32) -> Rates {
        Rates { prices: Prices::default(), duration_s: 600.0, frequency_hz }
    }

    #[test]
    fn three_samples_in_ten_minutes() {
        let known = host(&[("cloud.provider", "aws"), ("cloud.region", "eu-west-1"), ("host.arch", "amd64")]);
        let annual = rates(20).annual(Some(&known), 3);
        assert!((annual.co2_tons - 4.847_514_63e-6).abs() < 1e-13, "{annual:?}");
        let annual = rates(19).annual(None, 3);
        assert!((rates(19).annual_core_hours(3) - 2.305_263_157_894_737).abs() < 1e-12);
        assert!((annual.costs_usd - 0.097_973_684_210_526_32).abs() < 1e-14, "{annual:?}");
        assert!((annual.co2_tons - 1.039_886_022e-5).abs() < 1e-13, "{annual:?}");
    }

    #[test]
    fn the_place_is_read_from_whatever_says_it() {
        for (facts, provider, region) in [
            (&[("ec2.placement.region", "us-east-2")][..], "aws", "us-east-2"),
            (&[("gce.instance.zone", "projects/123/zones/europe-west1-b")], "gcp", "europe-west1"),
            (&[("azure.compute.location", "eastus2")], "azure", "eastus2"),
            (&[("profiling.host.tags", "a;cloud_provider:aws;cloud_region:us-east-1")], "aws", "us-east-1"),
            (&[("cloud.provider", "gcp"), ("ec2.placement.region", "us-east-2")], "gcp", ""),
            (&[], "", ""),
        ] {
            assert_eq!(place(&host(facts)), (provider.to_owned(), region.to_owned()), "{facts:?}");
        }
    }

    #[test]
    fn factors_and_watts_of_the_request_count_where_they_apply() {
        let prices = Prices { aws_cost_factor: 0.5, per_core_watt_arm64: 1.4, ..Prices::default() };
        let rates = Rates { prices, ..rates(20) };
        let arm = host(&[("cloud.provider", "aws"), ("host.arch", "aarch64")]);
        let plain = rates.annual(None, 3);
        let found = rates.annual(Some(&arm), 3);
        assert!((found.costs_usd * 2.0 - plain.costs_usd).abs() < 1e-12);
        let expected = plain.co2_tons / 7.0 * 1.4 / 1.7 * 1.135;
        assert!((found.co2_tons - expected).abs() < 1e-15);
        assert!(
            (Rates { duration_s: 0.0, ..rates }.annual_core_hours(1) - YEAR_S / 20.0 / 3600.0).abs() < 1e-9
        );
    }
}
