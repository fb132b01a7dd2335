//! The two text formats: Prometheus' own (0.0.4) and OpenMetrics (1.0.0).
//!
//! They differ in little: OpenMetrics names a counter without `_total`, states units, and ends with `# EOF`.
//! Bounds of buckets are written the same way in both, and as Prometheus writes those of the protobuf format
//! (`60.0`): they are label values, and a series must not change its name with the format.

use std::fmt::Write as _;

use super::family::{Family, Kind, Sample, Value};

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

/// Writes all families.
#[must_use]
pub fn write(families: &[Family<'_>], dialect: Dialect) -> String {
    let mut out = String::with_capacity(64 << 10);
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        write_family(&mut out, family, dialect);
    }
    if dialect == Dialect::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn write_family(out: &mut String, family: &Family<'_>, dialect: Dialect) {
    let total = if family.kind == Kind::Counter { "_total" } else { "" };
    let suffix = if dialect == Dialect::Prometheus { total } else { "" };
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let name = family.name;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name}{suffix} {}", family.help);
    let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
    if let (Some(unit), Dialect::OpenMetrics) = (family.unit, dialect) {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
    for sample in &family.samples {
        match sample.value {
            Value::Number(value) => write_sample(out, name, total, sample, None, value),
            Value::Histogram(histogram) => {
                for (bound, count) in histogram.cumulative() {
                    write_sample(out, name, "_bucket", sample, Some(bound), count as f64);
                }
                write_sample(out, name, "_sum", sample, None, histogram.sum_s());
                write_sample(out, name, "_count", sample, None, histogram.count() as f64);
            }
        }
    }
}

fn write_sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    sample: &Sample<'_>,
    le: Option<f64>,
    value: f64,
) {
    out.push_str(name);
    out.push_str(suffix);
    if !sample.labels.is_empty() || le.is_some() {
        let mut before = '{';
        for (label, text) in &sample.labels {
            out.push(before);
            before = ',';
            out.push_str(label);
            out.push_str("=\"");
            escape_into(out, text);
            out.push('"');
        }
        if let Some(le) = le {
            let _ = write!(out, "{before}le=\"{}\"", Number { value: le, as_float: true });
        }
        out.push('}');
    }
    let _ = writeln!(out, " {}", Number { value, as_float: false });
}

/// What both formats ask for inside of quotes.
fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

struct Number {
    value: f64,
    /// With `.0` behind what is whole.
    as_float: bool,
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value {
            f64::INFINITY => f.write_str("+Inf"),
            value if self.as_float => write!(f, "{value:?}"),
            value => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::*;

    fn families(histogram: &Histogram) -> Vec<Family<'_>> {
        let mut counter = Family::counter("x_things", "Things.");
        counter.number(&[("a", "q\"\\\n"), ("b", "")], 3.0);
        let mut dwell = Family::histogram("x_dwell_seconds", "Dwells.");
        dwell.push(vec![("state", "TIME_WAIT".into())], Value::Histogram(histogram));
        vec![counter, Family::gauge("x_empty", "Nothing."), dwell]
    }

    #[test]
    fn both_dialects() {
        let mut histogram = Histogram::default();
        histogram.record(60_500_000_000);
        let plain = write(&families(&histogram), Dialect::Prometheus);
        assert!(plain.starts_with(
            "# HELP x_things_total Things.\n# TYPE x_things_total counter\n\
             x_things_total{a=\"q\\\"\\\\\\n\",b=\"\"} 3\n# HELP x_dwell_seconds Dwells.\n"
        ));
        assert!(plain.contains("x_dwell_seconds_bucket{state=\"TIME_WAIT\",le=\"60.0\"} 0\n"));
        assert!(plain.contains("x_dwell_seconds_bucket{state=\"TIME_WAIT\",le=\"60.5\"} 1\n"));
        assert!(plain.contains("x_dwell_seconds_bucket{state=\"TIME_WAIT\",le=\"+Inf\"} 1\n"));
        assert!(plain.ends_with(
            "x_dwell_seconds_sum{state=\"TIME_WAIT\"} 60.5\nx_dwell_seconds_count{state=\"TIME_WAIT\"} 1\n"
        ));
        let open = write(&families(&histogram), Dialect::OpenMetrics);
        assert!(open.starts_with("# HELP x_things Things.\n# TYPE x_things counter\nx_things_total{"));
        assert!(open.contains("# UNIT x_dwell_seconds seconds\n"));
        assert!(open.ends_with("# EOF\n"));
    }
}
