/* edgewise_image.h: from the pixels of a camera or decoder to what a network takes, with the numbers of `edgewise eval --preprocess`.
 *
 * A library of its own, without anything beneath it: link edgewise_image. It allocates nothing and keeps nothing. The pixels must be
 * upright: the orientation that EXIF asks for is applied by who decodes. docs/embedding.md has an example. */
#ifndef EDGEWISE_IMAGE_H
#define EDGEWISE_IMAGE_H

#include "edgewise.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EW_MAX_SIDE 65535

/* Bytes of a pixel, in the order in which they lie in memory. Alpha is dropped. */
typedef enum ew_pixels {
    EW_PIXELS_GRAY = 0,
    EW_PIXELS_RGB = 1,
    EW_PIXELS_BGR = 2,
    EW_PIXELS_RGBA = 3,
    EW_PIXELS_BGRA = 4
} ew_pixels;

typedef struct ew_image {
    const uint8_t* data;
    int32_t width;
    int32_t height;
    int64_t stride_bytes; /* from one row to the next; 0: rows without gaps */
    ew_pixels pixels;
} ew_image;

typedef enum ew_color { EW_COLOR_RGB = 0, EW_COLOR_BGR = 1, EW_COLOR_GRAY = 2 } ew_color;

/* As `preprocess` in a bundle's manifest: (pixel / scale - mean) / std after resizing and cropping the centre. The resize is bilinear with
 * antialiasing, in the fixed-point numbers of PIL. `edgewise pack` writes this table for a bundle that has one. */
typedef struct ew_preprocess {
    int32_t resize_height; /* 0: none */
    int32_t resize_width;  /* 0: resize_height is the short side, the other in proportion */
    int32_t crop_height;   /* 0: none */
    int32_t crop_width;    /* as crop_height */
    ew_color color;        /* the order of the output's channels */
    float scale;
    float mean[3];
    float std[3];
} ew_preprocess;

/* What an image becomes: float32 [channels, height, width], and how many bytes of workspace that takes. */
typedef struct ew_prepared {
    int32_t channels;
    int32_t height;
    int32_t width;
    size_t output_bytes;
    size_t workspace_bytes;
} ew_prepared;

EW_API ew_status ew_preprocess_plan(const ew_preprocess* steps, const ew_image* image, ew_prepared* prepared);
/* bytes must be output_bytes; the workspace, aligned to 8 bytes, has at least workspace_bytes, and may be used again for the next image. */
EW_API ew_status ew_preprocess_run(const ew_preprocess* steps, const ew_image* image, float* output, size_t bytes, void* workspace,
                                   size_t workspace_bytes);
/* Of the last call of this header on this thread that failed; never NULL. */
EW_API const char* ew_preprocess_error(void);

#ifdef __cplusplus
}
#endif
#endif
