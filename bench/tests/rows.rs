//! Every kind of row runs against a real server and prints; how fast it is, a debug build does not tell.

use keymill_bench::BenchArgs;

#[test]
fn a_row_of_each_kind_is_measured_beside_its_ceiling_and_prints() {
    for only in [
        "in-process BatchDecrypt 256 x 1 KiB",
        "CMKs at random",
        "tcp BatchEncrypt 16",
        "1 in flight, p50",
        "tcp over TLS 1.3 BatchDecrypt",
        "lane hop, 16",
        "envelope open",
        "secret",
        "http",
        "single",
        "audit on, tcp Batch",
    ] {
        let args = BenchArgs { only: Some(only.into()), quick: true, ..BenchArgs::default() };
        let report = keymill_bench::run(&args).unwrap();
        assert!(!report.rows.is_empty(), "no row is called {only}");
        for row in &report.rows {
            assert!(row.ours > 0.0 && row.ceiling > 0.0 && row.ratio.median.is_finite(), "{row:?}");
            assert_eq!(row.pairs, 3);
        }
        report.print(true).unwrap();
    }
}
