/* What dev.edgewise.Engine (Engine.kt) calls. Buffers are direct and native byte order; an error is a dev.edgewise.EdgewiseException. */
#include <jni.h>
#include <stdlib.h>

#include "edgewise.h"

typedef struct {
    ew_engine* engine;
    ew_context* context;
} Opened;

static int failed(JNIEnv* env, ew_status status) {
    jclass kind;
    if (status == EW_OK) return 0;
    kind = (*env)->FindClass(env, "dev/edgewise/EdgewiseException");
    if (kind) (*env)->ThrowNew(env, kind, ew_last_error());
    return 1;
}

static ew_status wrong(JNIEnv* env, const char* what) {
    jclass kind = (*env)->FindClass(env, "java/lang/IllegalArgumentException");
    if (kind) (*env)->ThrowNew(env, kind, what);
    return EW_INVALID_ARGUMENT;
}

static Opened* of(jlong handle) { return (Opened*)(intptr_t)handle; }

static void close_all(Opened* opened) {
    ew_context_close(opened->context);
    ew_close(opened->engine);
    free(opened);
}

JNIEXPORT jlong JNICALL Java_dev_edgewise_Engine_open(JNIEnv* env, jobject self, jstring path, jint threads) {
    const ew_options options = {threads, 0, 0};
    const char* text = (*env)->GetStringUTFChars(env, path, NULL);
    Opened* opened = text ? calloc(1, sizeof *opened) : NULL;
    ew_status status;
    (void)self;
    if (!opened) {
        if (text) {
            (*env)->ReleaseStringUTFChars(env, path, text);
            wrong(env, "out of memory");
        }
        return 0;
    }
    status = ew_open(text, &opened->engine);
    if (status == EW_OK) status = ew_context_create(opened->engine, &options, &opened->context);
    (*env)->ReleaseStringUTFChars(env, path, text);
    if (failed(env, status)) {
        close_all(opened);
        return 0;
    }
    return (jlong)(intptr_t)opened;
}

JNIEXPORT void JNICALL Java_dev_edgewise_Engine_free(JNIEnv* env, jobject self, jlong handle) {
    (void)env, (void)self;
    close_all(of(handle));
}

JNIEXPORT jint JNICALL Java_dev_edgewise_Engine_count(JNIEnv* env, jobject self, jlong handle, jboolean outputs) {
    (void)env, (void)self;
    return outputs ? ew_output_count(of(handle)->engine) : ew_input_count(of(handle)->engine);
}

JNIEXPORT jstring JNICALL Java_dev_edgewise_Engine_name(JNIEnv* env, jobject self, jlong handle, jboolean outputs, jint index) {
    ew_tensor_info info;
    (void)self;
    if (failed(env, outputs ? ew_output_info(of(handle)->engine, index, &info) : ew_input_info(of(handle)->engine, index, &info))) return NULL;
    return (*env)->NewStringUTF(env, info.name);
}

JNIEXPORT void JNICALL Java_dev_edgewise_Engine_setShape(JNIEnv* env, jobject self, jlong handle, jint index, jlongArray dims) {
    int64_t values[EW_MAX_RANK];
    const jsize rank = (*env)->GetArrayLength(env, dims);
    jsize i;
    (void)self;
    if (rank > EW_MAX_RANK) {
        wrong(env, "too many dims");
        return;
    }
    for (i = 0; i < rank; ++i) {
        jlong value;
        (*env)->GetLongArrayRegion(env, dims, i, 1, &value);
        values[i] = value;
    }
    failed(env, ew_set_input_shape(of(handle)->context, index, values, rank));
}

JNIEXPORT jlongArray JNICALL Java_dev_edgewise_Engine_shape(JNIEnv* env, jobject self, jlong handle, jint index) {
    int64_t dims[EW_MAX_RANK];
    jlong values[EW_MAX_RANK];
    int32_t rank = 0, i;
    jlongArray made;
    (void)self;
    if (failed(env, ew_output_shape(of(handle)->context, index, dims, &rank))) return NULL;
    for (i = 0; i < rank; ++i) values[i] = dims[i];
    made = (*env)->NewLongArray(env, rank);
    if (made) (*env)->SetLongArrayRegion(env, made, 0, rank, values);
    return made;
}

JNIEXPORT void JNICALL Java_dev_edgewise_Engine_write(JNIEnv* env, jobject self, jlong handle, jint index, jobject buffer) {
    const void* data = (*env)->GetDirectBufferAddress(env, buffer);
    (void)self;
    if (!data) {
        wrong(env, "the buffer is not direct");
        return;
    }
    failed(env, ew_write_input(of(handle)->context, index, data, (size_t)(*env)->GetDirectBufferCapacity(env, buffer)));
}

JNIEXPORT void JNICALL Java_dev_edgewise_Engine_read(JNIEnv* env, jobject self, jlong handle, jint index, jobject buffer) {
    void* data = (*env)->GetDirectBufferAddress(env, buffer);
    (void)self;
    if (!data) {
        wrong(env, "the buffer is not direct");
        return;
    }
    failed(env, ew_read_output(of(handle)->context, index, data, (size_t)(*env)->GetDirectBufferCapacity(env, buffer)));
}

JNIEXPORT void JNICALL Java_dev_edgewise_Engine_compute(JNIEnv* env, jobject self, jlong handle) {
    (void)self;
    failed(env, ew_run(of(handle)->context));
}
