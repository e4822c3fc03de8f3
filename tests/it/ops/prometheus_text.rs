//! The text format of Prometheus, read strictly.

use std::collections::{BTreeMap, BTreeSet};

use super::ops_client::OpsWorker;

/// Samples by name and sorted labels.
#[derive(Debug)]
pub(super) struct Samples(BTreeMap<String, f64>);

impl Samples {
    pub(super) async fn of(ops: &OpsWorker) -> Self {
        let response = ops.client.get("/metrics").await;
        assert_eq!(response.status, 200, "{response:?}");
        let kind = response.header("content-type");
        assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::read(&response.body)
    }

    /// # Panics
    /// If the text is not in the format, has a sample without a type or help, has a sample twice, or has a histogram
    /// whose buckets contradict its count.
    fn read(text: &str) -> Self {
        let mut types = BTreeMap::new();
        let mut helps = BTreeSet::new();
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a help");
                assert!(!help.is_empty(), "{line}");
                assert!(helps.insert(name), "{name} has two helps");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert_eq!(types.insert(name, kind), None, "{name} has two types");
            } else {
                assert!(!line.starts_with('#'), "{line}");
                let (key, value) = sample(line);
                let name = key.split('{').next().expect("a name");
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| {
                        let family = name.strip_suffix(end)?;
                        (types.get(family) == Some(&"histogram")).then_some(family)
                    })
                    .unwrap_or(name);
                assert!(types.contains_key(family), "{line} has no type before it");
                assert!(helps.contains(family), "{line} has no help before it");
                assert_eq!(
                    samples.insert(key.clone(), value),
                    None,
                    "{key} comes twice"
                );
            }
        }
        let samples = Self(samples);
        for (name, _) in types.iter().filter(|(_, kind)| **kind == "histogram") {
            samples.check_histogram(name);
        }
        samples
    }

    /// The sample with this name and these labels, in any order.
    pub(super) fn get(&self, key: &str) -> Option<f64> {
        let (key, _) = sample(&format!("{key} 0"));
        self.0.get(&key).copied()
    }

    pub(super) fn value(&self, key: &str) -> f64 {
        self.get(key)
            .unwrap_or_else(|| panic!("no {key}: {:#?}", self.0.keys()))
    }

    /// The names with a prefix.
    pub(super) fn names(&self, prefix: &str) -> BTreeSet<&str> {
        self.0
            .keys()
            .map(|key| key.split('{').next().expect("a name"))
            .filter(|name| name.starts_with(prefix))
            .collect()
    }

    /// The sum of all samples of a name.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.0
            .iter()
            .filter(|(key, _)| key.split('{').next() == Some(name))
            .map(|(_, value)| value)
            .sum()
    }

    fn check_histogram(&self, name: &str) {
        let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (key, value) in &self.0 {
            let Some(labels) = key.strip_prefix(&format!("{name}_bucket{{")) else {
                continue;
            };
            let (bounds, others): (Vec<_>, Vec<_>) = labels
                .trim_end_matches('}')
                .split(',')
                .partition(|label| label.starts_with("le="));
            let [bound] = bounds[..] else {
                panic!("{key} has not one bound");
            };
            let bound = bound["le=\"".len()..].trim_end_matches('"');
            let bound = bound.parse().expect("a bound");
            series
                .entry(others.join(","))
                .or_default()
                .push((bound, *value));
        }
        assert!(!series.is_empty(), "{name} has no bucket");
        for (labels, mut buckets) in series {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(
                buckets.is_sorted_by(|one, other| one.1 <= other.1),
                "{name}"
            );
            let last = buckets.last().expect("a bucket");
            assert!(last.0.is_infinite(), "{name}");
            assert_eq!(
                self.value(&format!("{name}_count{{{labels}}}")).to_bits(),
                last.1.to_bits(),
                "{name}"
            );
            assert!(self.value(&format!("{name}_sum{{{labels}}}")) >= 0.0);
        }
    }
}

/// Returns a sample's name with its sorted labels, and its value.
fn sample(line: &str) -> (String, f64) {
    let (key, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().unwrap_or_else(|_| panic!("no value: {line}"));
    let (name, labels) = match key.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("the end of labels")),
        None => (key, ""),
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    assert!(is_name(name), "{line}");
    // No value of the worker's labels contains a comma or a quote.
    let mut labels: Vec<_> = labels
        .split(',')
        .filter(|label| !label.is_empty())
        .collect();
    for label in &labels {
        let (name, value) = label.split_once('=').expect("a label");
        assert!(is_name(name), "{line}");
        assert!(
            value.len() >= 2 && value.starts_with('"') && value.ends_with('"'),
            "{line}"
        );
    }
    labels.sort_unstable();
    let key = if labels.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{}}}", labels.join(","))
    };
    (key, value)
}
