//! Finds the library that `cmake --install ... --prefix PREFIX` left: QXR_PREFIX=PREFIX cargo run -- model.qpk < pixels
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-env-changed=QXR_PREFIX");
    let prefix = std::env::var("QXR_PREFIX").unwrap_or_else(|_| "/usr/local".into());
    let folder = ["lib", "lib64"]
        .iter()
        .map(|name| Path::new(&prefix).join(name))
        .find(|path| path.join("libqxr.a").is_file())
        .unwrap_or_else(|| panic!("no libqxr.a below {prefix}: set QXR_PREFIX to where the runtime is installed"));
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=static=qxr");
}
