// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "@NAME@",
    platforms: [@PLATFORMS@],
    products: [.library(name: "@NAME@", targets: ["@NAME@"])],
    targets: [
        .target(name: "@NAME@", resources: [.copy("Resources/model.mlpackage")]),
        .testTarget(name: "@NAME@Tests", dependencies: ["@NAME@"]@TEST_RESOURCES@),
    ]
)
