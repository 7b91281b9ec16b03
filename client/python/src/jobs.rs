//! What crosses as JSON: specs, descriptions of jobs, cursors and receipts. They are small and rare.

use mixfeed_client::{
    Cursor,
    spec::{JobInfo, JobSpec, Receipt},
};
use serde_json::{Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A position for a checkpoint.
pub fn cursor_json(cursor: &Cursor) -> String {
    serde_json::to_string(cursor).expect("plain fields")
}

/// What made a batch.
pub fn receipt_json(receipt: &Receipt) -> String {
    let replaced: Vec<Value> = receipt
        .replaced
        .iter()
        .map(|r| json!({"slot": r.slot, "record": r.record, "reason": r.reason, "probes": r.probes}))
        .collect();
    json!({
        "digest": hex(&receipt.digest),
        "branch": receipt.branch,
        "step": receipt.step,
        "mixture_seq": receipt.mixture_seq,
        "numerics": receipt.numerics,
        "plan_digest": hex(&receipt.plan_digest),
        "rank": receipt.rank,
        "world_size": receipt.world_size,
        "replaced": replaced,
    })
    .to_string()
}

/// A spec in the shape of the configuration's `[jobs.NAME]`, in JSON.
///
/// # Errors
/// Where it has an unknown name or a value of the wrong type, in words.
pub fn spec(text: &str) -> Result<JobSpec, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// A job as it was opened.
pub fn info_json(info: &JobInfo) -> String {
    let groups: Vec<Value> = info
        .groups
        .iter()
        .map(|g| {
            json!({
                "name": g.name,
                "records": g.records,
                "share": g.weight as f64 / 2f64.powi(32),
                "index_digest": hex(&g.index_digest),
            })
        })
        .collect();
    let sets: Vec<Value> = info
        .eval_sets
        .iter()
        .map(|set| json!({"group": set.group, "rows": set.rows, "digest": hex(&set.digest)}))
        .collect();
    json!({
        "job": info.job,
        "digest": hex(&info.digest),
        "spec": info.spec,
        "groups": groups,
        "classes": info.classes,
        "world_sizes": info.world_sizes,
        "steps": info.steps,
        "step_bytes": info.step_bytes,
        "eval_sets": sets,
        "eval_digest": hex(&info.eval_digest),
        "group_tokens": info.group_tokens,
        "group_left_tokens": info.group_left_tokens,
    })
    .to_string()
}
