//! What happens to images behind the agent's back.
use super::support::parts::ContainerdPart;
use anyhow::Result;
pub(super) async fn deleted(_: ContainerdPart) -> Result<()> {
    Ok(())
}
pub(super) async fn pulled_by_others(_: ContainerdPart) -> Result<()> {
    Ok(())
}
pub(super) async fn burst(_: ContainerdPart) -> Result<()> {
    Ok(())
}
pub(super) async fn unimplemented() -> Result<()> {
    Ok(())
}
