//! Metric tons of CO2 per kWh by provider and region: the table in `carbon.tsv` (figures of the Cloud Carbon Footprint
//! project, Apache-2.0, in millionths).

use std::collections::HashMap;
use std::sync::LazyLock;

/// Lines of provider, tons × 10⁶, regions.
const TABLE: &str = include_str!("carbon.tsv");

static REGIONS: LazyLock<HashMap<(&str, &str), f64>> = LazyLock::new(|| {
    let mut regions = HashMap::new();
    for line in TABLE.lines() {
        let mut columns = line.split('\t');
        let (Some(provider), Some(millionths)) = (columns.next(), columns.next()) else { continue };
        let Ok(millionths) = millionths.parse::<f64>() else { continue };
        for region in columns.flat_map(|names| names.split(' ')) {
            regions.insert((provider, region), millionths * 1e-6);
        }
    }
    regions
});

/// Tons per kWh in a region.
#[must_use]
pub fn tons_per_kwh(provider: &str, region: &str) -> Option<f64> {
    REGIONS.get(&(provider, region)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_and_regions_are_found() {
        assert!(TABLE.lines().all(|line| line.split('\t').count() == 3));
        assert_eq!(
            REGIONS.len(),
            TABLE.lines().map(|l| l.split('\t').nth(2).unwrap().split(' ').count()).sum::<usize>()
        );
        for (provider, region, millionths) in [
            ("aws", "eu-west-1", 278.6),
            ("aws", "ap-northeast-3", 465.8),
            ("gcp", "northamerica-northeast1", 0.0),
            ("azure", "eastus2euap", 379.069),
            ("azure", "japanwest", 465.8),
        ] {
            let found = tons_per_kwh(provider, region).unwrap();
            assert!((found - millionths * 1e-6).abs() < 1e-12, "{provider} {region}: {found}");
        }
        assert_eq!(tons_per_kwh("aws", "moon-1"), None);
    }
}
