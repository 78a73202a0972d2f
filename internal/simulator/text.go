package simulator

import "strconv"

const hexDigits = "0123456789abcdef"

// appendHex writes 16 hexadecimal digits.
func appendHex(dst []byte, h uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[h>>shift&15])
	}
	return dst
}

// appendUUID writes 128 bits as a UUID of RFC 9562, with the version's and the
// variant's bits in their places.
func appendUUID(dst []byte, high, low uint64, version byte) []byte {
	high = high&^0xf000 | uint64(version)<<12
	low = low&^(3<<62) | 2<<62
	var b [36]byte
	at := 0
	for i := range 32 {
		if i == 8 || i == 12 || i == 16 || i == 20 {
			b[at] = '-'
			at++
		}
		h := high
		if i >= 16 {
			h = low
		}
		b[at] = hexDigits[h>>(60-4*(i&15))&15]
		at++
	}
	return append(dst, b[:]...)
}

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

const dayMillis = 86_400_000

// appendMillis writes a time as YYYY-MM-DDTHH:MM:SS.mmmZ. It is time.Format for
// the one layout that the feed knows, several times faster.
func appendMillis(dst []byte, millis int64) []byte {
	day := floorDiv(millis, dayMillis)
	year, month, dayOfMonth := civil(day)
	rest := millis - day*dayMillis
	ms, seconds := int(rest%1000), int(rest/1000)
	var b [24]byte
	b[0], b[1], b[2], b[3] = digit(year/1000), digit(year/100), digit(year/10), digit(year)
	b[4], b[5], b[6], b[7] = '-', digit(month/10), digit(month), '-'
	b[8], b[9], b[10] = digit(dayOfMonth/10), digit(dayOfMonth), 'T'
	b[11], b[12], b[13] = digit(seconds/36000), digit(seconds/3600%24), ':'
	b[14], b[15], b[16] = digit(seconds/600%6), digit(seconds/60), ':'
	b[17], b[18], b[19] = digit(seconds/10%6), digit(seconds), '.'
	b[20], b[21], b[22], b[23] = digit(ms/100), digit(ms/10), digit(ms), 'Z'
	return append(dst, b[:]...)
}

func digit(n int) byte { return byte('0' + n%10) }

// civil turns days since 1970-01-01 into a date of the Gregorian calendar,
// counting years from March so that leap days come last.
func civil(days int64) (year, month, day int) {
	days += 719_468
	era := floorDiv(days, 146_097)
	ofEra := int(days - era*146_097)
	yearOfEra := (ofEra - ofEra/1460 + ofEra/36_524 - ofEra/146_096) / 365
	ofYear := ofEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	fromMarch := (5*ofYear + 2) / 153
	day = ofYear - (153*fromMarch+2)/5 + 1
	month = fromMarch + 3
	year = yearOfEra + int(era)*400
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}
