//! Wake → poll agrees with tokio's own schedule latency.
