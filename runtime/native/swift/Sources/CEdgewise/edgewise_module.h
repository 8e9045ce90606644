#include <edgewise.h>
