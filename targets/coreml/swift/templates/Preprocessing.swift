// Written by edgewise from a bundle; write it again rather than changing it.
import CoreGraphics
import CoreML
import Foundation

/// From an image to what the network takes: resize, centre crop, colour, `(pixel / scale - mean) / std`.
public enum @NAME@Preprocessing {
    static let height = @HEIGHT@
    static let width = @WIDTH@
    static let channels: [Int] = [@CHANNELS@]
    static let scale: Float = @SCALE@
    static let mean: [Float] = [@MEAN@]
    static let std: [Float] = [@STD@]

    /// The image as the network sees it, [1, channels, height, width].
    public static func array(from image: CGImage) throws -> MLShapedArray<Float> {
        let pixels = try rgba(image)
        var scalars = [Float](repeating: 0, count: max(1, channels.count) * height * width)
        for place in 0..<(height * width) {
            for (index, channel) in channels.enumerated() {
                let value = channel < 3 ? Float(pixels[4 * place + channel]) : luma(pixels, place)
                scalars[index * height * width + place] = (value / scale - mean[index]) / std[index]
            }
        }
        return MLShapedArray<Float>(scalars: scalars, shape: [1, channels.count, height, width])
    }

    /// The image resized and cropped.
    public static func resized(_ image: CGImage) throws -> CGImage {
        let context = try draw(image)
        guard let made = context.makeImage() else { throw @NAME@Error.unusableImage }
        return made
    }

    private static func luma(_ pixels: [UInt8], _ place: Int) -> Float {
        let red = Float(pixels[4 * place]), green = Float(pixels[4 * place + 1]), blue = Float(pixels[4 * place + 2])
        return 0.299 * red + 0.587 * green + 0.114 * blue
    }

    private static func rgba(_ image: CGImage) throws -> [UInt8] {
        let context = try draw(image)
        guard let data = context.data else { throw @NAME@Error.unusableImage }
        let bytes = data.bindMemory(to: UInt8.self, capacity: 4 * height * width)
        return Array(UnsafeBufferPointer(start: bytes, count: 4 * height * width))
    }

    private static func draw(_ image: CGImage) throws -> CGContext {
        guard
            let space = CGColorSpace(name: CGColorSpace.sRGB),
            let context = CGContext(
                data: nil, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width, space: space,
                bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        else { throw @NAME@Error.unusableImage }
        let size = drawnSize(width: CGFloat(image.width), height: CGFloat(image.height))
        let origin = CGPoint(x: (CGFloat(width) - size.width) / 2, y: (CGFloat(height) - size.height) / 2)
        context.interpolationQuality = .high
        context.draw(image, in: CGRect(origin: origin, size: size))
        return context
    }

    /// How large the whole image is drawn, so that the crop is what lies in the middle.
    private static func drawnSize(width imageWidth: CGFloat, height imageHeight: CGFloat) -> CGSize {
@DRAWN_SIZE@
    }
}
