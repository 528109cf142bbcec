//! What was measured: rows with their ceiling, ratio, spread and verdict; as a table for a person, as JSON for a program.

use std::collections::BTreeMap;
use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::count::Counts;
use crate::curves::{Curve, Spread};
use crate::machine::Machine;
use crate::memory::{Counted, Memory};
use crate::stats::{Ratio, Target, Verdict};

/// A row: one path beside one ceiling.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The path.
    pub name: String,
    /// What it is measured against.
    pub against: &'static str,
    /// What the figures count.
    pub unit: Unit,
    /// The median of ours.
    pub ours: f64,
    /// The median of the ceiling.
    pub ceiling: f64,
    /// Ours to the ceiling, pair by pair.
    pub ratio: Ratio,
    /// Pairs that were measured.
    pub pairs: usize,
    /// What the ratio should be.
    pub target: Option<Target>,
    /// Whether it is.
    pub verdict: Verdict,
    /// Further figures of the row, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub also: BTreeMap<&'static str, f64>,
}

/// What the figures of a row count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Items a second.
    #[serde(rename = "items/s")]
    Items,
    /// Requests a second.
    #[serde(rename = "requests/s")]
    Requests,
    /// MiB a second.
    #[serde(rename = "MiB/s")]
    Mebibytes,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Calls of a module's function.
    #[serde(rename = "calls")]
    Calls,
}

/// A row that cannot be measured here.
#[derive(Clone, Debug, Serialize)]
pub struct NotMeasured {
    /// The path.
    pub name: String,
    /// What is lacking, and where it is to be had.
    #[serde(rename = "not_measured")]
    pub why: &'static str,
}

/// Everything that one run measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// Rows that are lacking, and why.
    pub not_measured: Vec<NotMeasured>,
    /// What was counted, not timed.
    pub counts: Vec<Counts>,
    /// What was weighed.
    pub memory: Vec<Memory>,
    /// The growth curves, where they were asked for.
    pub curves: Vec<Curve>,
    /// Rows that missed their target.
    pub missed: usize,
    /// Rows whose interval straddles their target.
    pub not_resolved: usize,
}

impl Report {
    pub(crate) fn new(machine: Machine, rows: Vec<Row>, counts: Vec<Counts>) -> Self {
        Self {
            machine,
            rows,
            not_measured: Vec::new(),
            counts,
            memory: Vec::new(),
            curves: Vec::new(),
            missed: 0,
            not_resolved: 0,
        }
        .judged()
    }

    /// Adds the rows that could not be measured.
    pub(crate) fn lacking(self, not_measured: Vec<NotMeasured>) -> Self {
        Self { not_measured, ..self }
    }

    /// Adds what else was measured.
    pub(crate) fn with(self, memory: Vec<Memory>, curves: Vec<Curve>) -> Self {
        Self { memory, curves, ..self }.judged()
    }

    fn judged(self) -> Self {
        let verdicts: Vec<Verdict> = self
            .rows
            .iter()
            .map(|row| row.verdict)
            .chain(self.counts.iter().map(|counts| counts.verdict))
            .chain(self.memory.iter().map(|memory| memory.verdict))
            .collect();
        let count = |verdict| verdicts.iter().filter(|v| **v == verdict).count();
        Self { missed: count(Verdict::Missed), not_resolved: count(Verdict::NotResolved), ..self }
    }

    /// Tells whether nothing was asked for that there is.
    pub(crate) fn is_empty(&self) -> bool {
        let rows = self.rows.is_empty() && self.not_measured.is_empty();
        rows && self.counts.is_empty() && self.memory.is_empty() && self.curves.is_empty()
    }

    /// Tells whether no target was missed.
    pub fn all_met(&self) -> bool {
        self.missed == 0
    }

    /// Prints a table, or one JSON object.
    ///
    /// # Errors
    /// Where standard output takes nothing.
    pub fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer(&mut out, self)?;
            return writeln!(out);
        }
        writeln!(out, "{}\n", self.machine.line())?;
        if !self.rows.is_empty() || !self.not_measured.is_empty() {
            writeln!(out, "{}\n", self.table())?;
        }
        if !self.counts.is_empty() {
            writeln!(out, "{}\n", counted(&self.counts))?;
        }
        if !self.memory.is_empty() {
            writeln!(out, "{}\n", weighed(&self.memory))?;
        }
        for curve in &self.curves {
            writeln!(out, "{}\n{}\n", curve.title, points(curve))?;
        }
        writeln!(out, "{}", self.summary())
    }

    fn summary(&self) -> String {
        let lacking = self.not_measured.len();
        let measured = match (self.missed, self.not_resolved) {
            (0, 0) if lacking > 0 => "every target that was measured is met".to_owned(),
            (0, 0) => "every target is met".to_owned(),
            (0, n) => {
                format!("no target is missed; {n} not resolved: more --pairs or a quieter machine would tell")
            }
            (m, n) => format!("{m} missed, {n} not resolved"),
        };
        match lacking {
            0 => measured,
            n => format!("{measured}; {n} not measured"),
        }
    }

    fn table(&self) -> Table {
        let mut table =
            table(&["path", "against", "ours", "ceiling", "ratio", "min … max", "target", "verdict"]);
        for row in &self.rows {
            let Ratio { median, min, max, .. } = row.ratio;
            let target = match row.target {
                Some(Target::AtLeast(target)) => format!("≥ {target:.2}"),
                Some(Target::AtMost(target)) => format!("≤ {target:.2}"),
                None => String::new(),
            };
            let mut name = row.name.clone();
            for (what, value) in &row.also {
                name.push_str(&format!("\n  {what} {}", figure(*value, row.unit)));
            }
            table.add_row([
                Cell::new(name),
                Cell::new(row.against),
                right(figure(row.ours, row.unit)),
                right(figure(row.ceiling, row.unit)),
                right(format!("{median:.3}")),
                right(format!("{min:.2} … {max:.2}")),
                right(target),
                Cell::new(words(row.verdict)),
            ]);
        }
        for row in &self.not_measured {
            let mut cells = vec![Cell::new(&row.name)];
            cells.resize_with(7, || Cell::new(""));
            cells.push(Cell::new(format!("not measured: {}", row.why)));
            table.add_row(cells);
        }
        table
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(Cell::new));
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn counted(counts: &[Counts]) -> Table {
    let mut table =
        table(&["counted, an item", "allocations", "bytes allocated", "bytes copied", "target", "verdict"]);
    for count in counts {
        table.add_row([
            Cell::new(&count.name),
            right(count.allocations.map_or("not counted".into(), |n| format!("{n:.4}"))),
            right(count.allocated_bytes.map_or(String::new(), |n| format!("{n:.1}"))),
            right(count.copied_bytes.map_or(String::new(), |n| format!("{n:.0}"))),
            right(count.target.map_or(String::new(), |n| format!("≤ {n}"))),
            Cell::new(words(count.verdict)),
        ]);
    }
    table
}

fn weighed(memory: &[Memory]) -> Table {
    let mut table = table(&["memory of one", "bytes", "counted by", "target", "verdict"]);
    for Memory { name, bytes, counted, target, verdict } in memory {
        table.add_row([
            Cell::new(name),
            right(bytes.map_or("not counted".into(), |bytes| format!("{bytes:.0}"))),
            Cell::new(match counted {
                Counted::Resident => "resident pages",
                Counted::Allocated => "the allocator",
            }),
            right(target.map_or(String::new(), |target| format!("≤ {target}"))),
            Cell::new(words(*verdict)),
        ]);
    }
    table
}

fn points(curve: &Curve) -> Table {
    let mut table =
        table(&[curve.x, curve.ours, "min … max", curve.against, "min … max", "ratio", "min … max"]);
    for point in &curve.points {
        let shown = |Spread { median, min, max }| {
            let [median, min, max] = [median, min, max].map(|value| figure(value, curve.unit));
            [right(median), right(format!("{min} … {max}"))]
        };
        let mut cells = vec![right(point.x.to_string())];
        cells.extend(shown(point.ours));
        cells.extend(shown(point.ceiling));
        let Ratio { median, min, max, .. } = point.ratio;
        cells.extend([right(format!("{median:.3}")), right(format!("{min:.2} … {max:.2}"))]);
        table.add_row(cells);
    }
    table
}

pub(crate) fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "MISSED",
        Verdict::NotResolved => "not resolved",
        Verdict::None => "",
    }
}

/// Returns a figure with three significant digits and its unit.
pub(crate) fn figure(value: f64, unit: Unit) -> String {
    let (value, scale) = match unit {
        Unit::Items | Unit::Requests if value >= 1e6 => (value / 1e6, " M/s"),
        Unit::Items | Unit::Requests if value >= 1e3 => (value / 1e3, " k/s"),
        Unit::Items | Unit::Requests => (value, " /s"),
        Unit::Mebibytes => (value, " MiB/s"),
        Unit::Nanoseconds if value >= 1e3 => (value / 1e3, " µs"),
        Unit::Nanoseconds => (value, " ns"),
        Unit::Microseconds if value >= 1e3 => (value / 1e3, " ms"),
        Unit::Microseconds => (value, " µs"),
        Unit::Calls => (value, " calls"),
    };
    let decimals = 2 - (value.abs().max(1.0).log10() as usize).min(2);
    format!("{value:.decimals$}{scale}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curves::tests::drawn;
    use crate::stats;

    fn row(verdict: Verdict) -> Row {
        Row {
            name: "tcp BatchEncrypt 256 x 1 KiB".into(),
            against: "bare loop",
            unit: Unit::Items,
            ours: 1_234_567.0,
            ceiling: 1_600_000.0,
            ratio: stats::ratio(&[7.0, 8.0, 9.0], &[10.0, 10.0, 10.0]),
            pairs: 3,
            target: Some(Target::AtLeast(0.65)),
            verdict,
            also: BTreeMap::from([("client alone", 3e6)]),
        }
    }

    #[test]
    fn figures_keep_three_digits_and_name_their_unit() {
        let show = |value, unit| figure(value, unit);
        assert_eq!(show(1_234_567.0, Unit::Items), "1.23 M/s");
        assert_eq!(show(12_345.0, Unit::Requests), "12.3 k/s");
        assert_eq!(show(123.4, Unit::Nanoseconds), "123 ns");
        assert_eq!(show(0.5, Unit::Microseconds), "0.50 µs");
        assert_eq!(show(41_900.0, Unit::Nanoseconds), "41.9 µs");
    }

    #[test]
    fn a_missed_row_makes_the_report_a_failure_and_an_unresolved_one_does_not() {
        let report = |verdict| Report::new(Machine::look(), vec![row(Verdict::Met), row(verdict)], vec![]);
        assert!(report(Verdict::NotResolved).all_met());
        assert!(!report(Verdict::Missed).all_met());
        assert_eq!(report(Verdict::Missed).summary(), "1 missed, 0 not resolved");
    }

    #[test]
    fn the_table_and_the_json_hold_ceiling_ours_ratio_spread_target_and_verdict() {
        let report = Report::new(Machine::look(), vec![row(Verdict::Met)], vec![]);
        let table = report.table().to_string();
        for part in ["1.23 M/s", "1.60 M/s", "0.800", "0.70 … 0.90", "≥ 0.65", "met", "client alone 3.00 M/s"]
        {
            assert!(table.contains(part), "{part} is not in\n{table}");
        }
        let json = serde_json::to_value(&report).unwrap();
        let row = &json["rows"][0];
        assert_eq!((&row["verdict"], &row["target"]["at_least"]), (&"met".into(), &0.65.into()));
        assert_eq!(row["ratio"]["median"], 0.8);
    }

    #[test]
    fn a_row_that_is_lacking_is_in_the_table_the_json_and_the_summary_and_misses_nothing() {
        let why = "no SoftHSM found; install softhsm2 or --module softhsm=PATH";
        let lacking = vec![NotMeasured { name: "hsm softhsm".into(), why }];
        let report = Report::new(Machine::look(), vec![row(Verdict::Met)], vec![]).lacking(lacking);
        let table = report.table().to_string();
        assert!(table.contains("hsm softhsm") && table.contains(&format!("not measured: {why}")), "{table}");
        assert_eq!(report.summary(), "every target that was measured is met; 1 not measured");
        assert!(report.all_met());
        assert_eq!(serde_json::to_value(&report).unwrap()["not_measured"][0]["not_measured"], why);
    }

    #[test]
    fn memory_above_its_target_is_missed_as_a_row_is_and_both_are_printed_and_told() {
        let memory = Memory {
            name: "connection".into(),
            bytes: Some(70_000.4),
            counted: Counted::Resident,
            target: Some(65_536.0),
            verdict: Verdict::Missed,
        };
        let report = Report::new(Machine::look(), vec![row(Verdict::Met)], vec![]);
        let report = report.with(vec![memory], vec![drawn(&[(4.0, 1e6, 2e6)])]);
        assert_eq!((report.missed, report.all_met()), (1, false));
        let table = weighed(&report.memory).to_string();
        for part in ["70000", "resident pages", "≤ 65536", "MISSED"] {
            assert!(table.contains(part), "{part} is not in\n{table}");
        }
        let table = points(&report.curves[0]).to_string();
        for part in ["items a batch", "keymill", "bare loop", "1.00 M/s", "1.80 M/s … 2.20 M/s", "0.500"] {
            assert!(table.contains(part), "{part} is not in\n{table}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["memory"][0]["counted"], &json["memory"][0]["verdict"]),
            (&"resident".into(), &"missed".into())
        );
        assert_eq!(json["curves"][0]["points"][0]["ratio"]["median"], 0.5);
    }
}
