//! Length-delimited protobuf: the only format in which Prometheus takes native histograms.
//!
//! The few messages of `io.prometheus.client` (metrics.proto of the Prometheus client model) that are needed,
//! written down with their field numbers, so that the build needs no protoc.

use prost::Message;

use super::family::{Family, Kind, Sample, Value};
use super::histogram::{Histogram, SCHEMA, ZERO_THRESHOLD_S};

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    /// COUNTER 0, GAUGE 1, HISTOGRAM 4.
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, optional, tag = "5")]
    unit: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<HistogramMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// `Gauge` and `Counter` are alike in what is used of them.
#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct HistogramMessage {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    /// Buckets between the end of the span before and this one; of the first, the index of its first bucket.
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

/// Writes all families, each with its length in front.
#[must_use]
pub fn write(families: &[Family<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 << 10);
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        out.extend(message(family).encode_length_delimited_to_vec());
    }
    out
}

fn message(family: &Family<'_>) -> MetricFamily {
    // As in text 0.0.4, and unlike OpenMetrics, a counter's family has the name of its series.
    let total = if family.kind == Kind::Counter { "_total" } else { "" };
    MetricFamily {
        name: Some(format!("{}{total}", family.name)),
        help: Some(family.help.to_owned()),
        kind: Some(match family.kind {
            Kind::Counter => 0,
            Kind::Gauge => 1,
            Kind::Histogram => 4,
        }),
        metric: family.samples.iter().map(|sample| metric(sample, family.kind)).collect(),
        unit: family.unit.map(str::to_owned),
    }
}

fn metric(sample: &Sample<'_>, kind: Kind) -> Metric {
    let label = |(name, value): &(&str, std::borrow::Cow<'_, str>)| LabelPair {
        name: Some((*name).to_owned()),
        value: Some(value.to_string()),
    };
    let mut metric = Metric { label: sample.labels.iter().map(label).collect(), ..Metric::default() };
    match sample.value {
        Value::Number(value) if kind == Kind::Counter => metric.counter = Some(Number { value: Some(value) }),
        Value::Number(value) => metric.gauge = Some(Number { value: Some(value) }),
        Value::Histogram(histogram) => metric.histogram = Some(histogram_message(histogram)),
    }
    metric
}

/// Classic and native buckets both: Prometheus takes what it is configured for.
fn histogram_message(histogram: &Histogram) -> HistogramMessage {
    let (mut positive_span, mut positive_delta) = (Vec::new(), Vec::new());
    let (mut end, mut before) = (0, 0);
    for span in histogram.spans() {
        positive_span.push(BucketSpan {
            offset: Some(span.first - end),
            length: u32::try_from(span.counts.len()).ok(),
        });
        end = span.first + span.counts.len() as i32;
        for count in span.counts {
            // Counts of dwells stay far below 2⁶³.
            let count = count as i64;
            positive_delta.push(count - before);
            before = count;
        }
    }
    HistogramMessage {
        sample_count: Some(histogram.count()),
        sample_sum: Some(histogram.sum_s()),
        bucket: histogram
            .cumulative()
            .map(|(bound, count)| Bucket { cumulative_count: Some(count), upper_bound: Some(bound) })
            .collect(),
        schema: Some(SCHEMA),
        zero_threshold: Some(ZERO_THRESHOLD_S),
        zero_count: Some(histogram.zeros()),
        positive_span,
        positive_delta,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_told_by_gaps_and_differences() {
        let mut histogram = Histogram::default();
        for seconds in [60, 61, 61, 62] {
            histogram.record(seconds * 1_000_000_000);
        }
        histogram.record(1_000_000);
        let mut family = Family::histogram("x_seconds", "X.");
        family.push(vec![("state", "TIME_WAIT".into())], Value::Histogram(&histogram));
        let bytes = write(&[family, Family::gauge("x_empty", "Nothing.")]);
        let read = MetricFamily::decode_length_delimited(bytes.as_slice()).expect("decodes");
        assert_eq!(read.encode_length_delimited_to_vec(), bytes, "nothing follows");
        assert_eq!((read.name.as_deref(), read.kind), (Some("x_seconds"), Some(4)));
        let histogram = read.metric[0].histogram.clone().expect("histogram");
        assert_eq!((histogram.sample_count, histogram.sample_sum), (Some(5), Some(244.001)));
        let spans: Vec<_> = histogram.positive_span.iter().map(|span| (span.offset, span.length)).collect();
        // 2^(-159/16) s < 1 ms ≤ 2^(-158/16) s… and 60, 61 s in bucket 95, 62 s in bucket 96.
        assert_eq!(spans, [(Some(-159), Some(1)), (Some(253), Some(2))]);
        assert_eq!(histogram.positive_delta, [1, 2, -2]);
    }
}
