package dev.edgewise

import java.io.Closeable
import java.nio.ByteBuffer

/** What libedgewise refuses, in its words. */
class EdgewiseException(message: String) : RuntimeException(message)

/**
 * An engine file with one context: not for two threads at once. Buffers are direct (`ByteBuffer.allocateDirect`), in native byte order, and
 * exactly as large as the tensor. Use it as a resource (`Engine(path).use { … }`).
 *
 * @param path the engine file, outside of the APK (copy an asset to `filesDir` once).
 * @param threads 0 is one per core; 1 starts none.
 */
class Engine(path: String, threads: Int = 0) : Closeable {
    private var handle: Long = open(path, threads)

    val inputNames: List<String> get() = (0 until count(live(), false)).map { name(live(), false, it) }
    val outputNames: List<String> get() = (0 until count(live(), true)).map { name(live(), true, it) }

    /** For inputs with free dims, before the first run and whenever it changes. */
    fun setInputShape(index: Int, dims: LongArray) = setShape(live(), index, dims)

    fun outputShape(index: Int): LongArray = shape(live(), index)

    fun writeInput(index: Int, data: ByteBuffer) = write(live(), index, data)

    fun run() = compute(live())

    fun readOutput(index: Int, data: ByteBuffer) = read(live(), index, data)

    override fun close() {
        if (handle != 0L) free(handle)
        handle = 0L
    }

    private fun live(): Long {
        check(handle != 0L) { "the engine is closed" }
        return handle
    }

    private external fun open(path: String, threads: Int): Long
    private external fun free(handle: Long)
    private external fun count(handle: Long, outputs: Boolean): Int
    private external fun name(handle: Long, outputs: Boolean, index: Int): String
    private external fun setShape(handle: Long, index: Int, dims: LongArray)
    private external fun shape(handle: Long, index: Int): LongArray
    private external fun write(handle: Long, index: Int, data: ByteBuffer)
    private external fun read(handle: Long, index: Int, data: ByteBuffer)
    private external fun compute(handle: Long)

    private companion object {
        init {
            System.loadLibrary("edgewise_jni")
        }
    }
}
