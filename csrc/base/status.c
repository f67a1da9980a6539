#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

dc_status dc_error_set(dc_error *err, dc_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        err->status = status;
    }
    return status;
}
