// Written by edgewise from a bundle; write it again rather than changing it.
import CoreGraphics
import CoreML
import Foundation

public enum @NAME@Error: Error {
    /// The package is not among the target's resources.
    case missingModel
    /// Core ML gave no output of this name, or one of another kind.
    case missingOutput(String)
    /// An image cannot be drawn in the network's size.
    case unusableImage
}

/// What the network takes.
public struct @NAME@Input {
@INPUT_PROPERTIES@

    public init(@INPUT_PARAMETERS@) {
@INPUT_ASSIGNMENTS@
    }

    func features() throws -> MLFeatureProvider {
        try MLDictionaryFeatureProvider(dictionary: [
@INPUT_FEATURES@
        ])
    }
}

/// What the network gives.
public struct @NAME@Output {
@OUTPUT_PROPERTIES@

    init(_ features: MLFeatureProvider) throws {
@OUTPUT_ASSIGNMENTS@
    }

    private static func feature(_ name: String, in features: MLFeatureProvider) throws -> MLFeatureValue {
        guard let value = features.featureValue(for: name) else { throw @NAME@Error.missingOutput(name) }
        return value
    }

    private static func array<Scalar: MLShapedArrayScalar>(
        _ name: String, in features: MLFeatureProvider
    ) throws -> MLShapedArray<Scalar> {
        guard let array = try feature(name, in: features).multiArrayValue else {
            throw @NAME@Error.missingOutput(name)
        }
        return MLShapedArray<Scalar>(converting: array)
    }
}

/// The network. One prediction at a time; `await` lets the caller go on.
public actor @NAME@ {
    private let model: MLModel
@STATE_PROPERTY@

    /// Compiles and loads the package, which takes a while: keep the instance.
    public init(configuration: MLModelConfiguration = MLModelConfiguration()) async throws {
        guard let package = Bundle.module.url(forResource: "model", withExtension: "mlpackage") else {
            throw @NAME@Error.missingModel
        }
        let compiled = try await MLModel.compileModel(at: package)
        model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
@STATE_INIT@
    }

    public func prediction(_ input: @NAME@Input) throws -> @NAME@Output {
        try @NAME@Output(model.prediction(from: input.features()@STATE_USE@))
    }
@STATE_RESET@
}
