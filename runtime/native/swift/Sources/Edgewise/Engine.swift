import CEdgewise

/// What libedgewise refuses, in its words.
public struct EdgewiseError: Error, CustomStringConvertible {
    public let status: UInt32
    public let description: String
}

/// An engine file with one context: not for two threads at once.
public final class Engine {
    private let engine: OpaquePointer
    private let context: OpaquePointer

    /// Maps the file. `threads`: 0 is one per core, 1 starts none.
    public init(path: String, threads: Int32 = 0) throws {
        var opened: OpaquePointer?
        try check(ew_open(path, &opened))
        var options = ew_options()
        options.threads = threads
        var made: OpaquePointer?
        let status = ew_context_create(opened, &options, &made)
        if status != EW_OK {
            ew_close(opened)
            try check(status)
        }
        engine = opened!
        context = made!
    }

    deinit {
        ew_context_close(context)
        ew_close(engine)
    }

    public var inputCount: Int { Int(ew_input_count(engine)) }
    public var outputCount: Int { Int(ew_output_count(engine)) }

    /// For inputs with free dims, before the first run and whenever it changes.
    public func setInputShape(_ index: Int, _ dims: [Int64]) throws {
        try check(ew_set_input_shape(context, Int32(index), dims, Int32(dims.count)))
    }

    public func outputShape(_ index: Int) throws -> [Int64] {
        var dims = [Int64](repeating: 0, count: Int(EW_MAX_RANK))
        var rank: Int32 = 0
        try check(ew_output_shape(context, Int32(index), &dims, &rank))
        return Array(dims.prefix(Int(rank)))
    }

    /// Copies in exactly the tensor's bytes.
    public func writeInput<Element>(_ index: Int, _ values: [Element]) throws {
        try values.withUnsafeBytes { bytes in
            try check(ew_write_input(context, Int32(index), bytes.baseAddress, bytes.count))
        }
    }

    public func run() throws {
        try check(ew_run(context))
    }

    /// Copies out exactly the tensor's bytes.
    public func readOutput<Element>(_ index: Int, into values: inout [Element]) throws {
        try values.withUnsafeMutableBytes { bytes in
            try check(ew_read_output(context, Int32(index), bytes.baseAddress, bytes.count))
        }
    }
}

private func check(_ status: ew_status) throws {
    if status != EW_OK {
        throw EdgewiseError(status: status.rawValue, description: String(cString: ew_last_error()))
    }
}
