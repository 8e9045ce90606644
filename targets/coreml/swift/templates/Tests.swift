// Written by edgewise from a bundle; write it again rather than changing it.
import CoreML
import ImageIO
import XCTest

@testable import @NAME@

/// The samples that the bundle brings, through Core ML: the outputs must be those of the network.
final class @NAME@Tests: XCTestCase {
    private struct Tensor: Decodable {
        let file: String
        let shape: [Int]
    }

    private struct Sample: Decodable {
        let inputs: [String: Tensor]
        let outputs: [String: Tensor]
    }

    private static let leastDecibels = @LEAST_DB@

    private func url(_ name: String) throws -> URL {
        let folder = try XCTUnwrap(Bundle.module.url(forResource: "Resources", withExtension: nil))
        return folder.appendingPathComponent(name)
    }

    private func array<Scalar: MLShapedArrayScalar>(_ tensor: Tensor) throws -> MLShapedArray<Scalar> {
        let data = try Data(contentsOf: url(tensor.file))
        let scalars = data.withUnsafeBytes { Array($0.bindMemory(to: Scalar.self)) }
        return MLShapedArray<Scalar>(scalars: scalars, shape: tensor.shape)
    }

    private func image(_ tensor: Tensor) throws -> CGImage {
        let source = try XCTUnwrap(CGImageSourceCreateWithURL(url(tensor.file) as CFURL, nil))
        return try XCTUnwrap(CGImageSourceCreateImageAtIndex(source, 0, nil))
    }

    private func decibels<Scalar: BinaryFloatingPoint>(_ want: [Scalar], _ have: [Scalar]) -> Double {
        XCTAssertEqual(want.count, have.count)
        let noise = zip(want, have).map { pow(Double($0) - Double($1), 2) }.reduce(0, +)
        let signal = want.map { pow(Double($0), 2) }.reduce(0, +)
        return 10 * log10(signal / max(noise, 1e-30))
    }

    func testReferenceSamples() async throws {
        let samples = try JSONDecoder().decode([Sample].self, from: Data(contentsOf: url("reference.json")))
        XCTAssertFalse(samples.isEmpty)
        let network = try await @NAME@()
        for sample in samples {
            let input = try @NAME@Input(@TEST_INPUTS@)
            let output = try await network.prediction(input)
@TEST_OUTPUTS@
        }
    }
}
