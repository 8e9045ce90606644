// swift-tools-version:5.9
// libedgewise for Swift. The C library is built by CMake (for iOS: -DCMAKE_SYSTEM_NAME=iOS) and installed where the linker finds it.
import PackageDescription

let package = Package(
    name: "Edgewise",
    products: [.library(name: "Edgewise", targets: ["Edgewise"])],
    targets: [
        .systemLibrary(name: "CEdgewise", pkgConfig: "edgewise"),
        .target(name: "Edgewise", dependencies: ["CEdgewise"]),
    ]
)
