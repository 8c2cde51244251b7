//! What the operator asks about credentials.
use super::Exchange;

impl Exchange {
    pub(super) fn credentials_status(&self, _profile: Option<&str>) -> Result<serde_json::Value, String> {
        todo!()
    }
    pub(super) fn credentials_adopt(
        &self,
        _p: &str,
        _s: &str,
        _q: Option<&str>,
    ) -> Result<serde_json::Value, String> {
        todo!()
    }
    pub(super) fn credentials_switch(&self, _p: &str, _s: &str) -> Result<serde_json::Value, String> {
        todo!()
    }
}
