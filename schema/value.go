package schema

import "math"

// From the feed's texts to typed values. Every function takes a whole text,
// and refuses what it could not write back in full.

// parseInteger reads a decimal number whose value is an integer of 64 bits:
// 36, -300, +60, 007, 36.0, 3.6e1 and 1e3, but not 36.5 or 1e19.
func parseInteger(text []byte) (value int64, ok bool) {
	digits, negative := cutSign(text)
	if len(digits) == 0 || len(digits) > 18 {
		return parseLongForm(digits, negative)
	}
	for _, c := range digits {
		if !isDigit(c) {
			return parseLongForm(digits, negative)
		}
		value = value*10 + int64(c-'0')
	}
	if negative {
		value = -value
	}
	return value, true
}

func cutSign(text []byte) (rest []byte, negative bool) {
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		return text[1:], text[0] == '-'
	}
	return text, false
}

// parseLongForm reads digits[.digits][e[sign]digits] of any length. It keeps
// the digits from the first to the last that is not zero, and the power of ten
// that the last of them stands for.
func parseLongForm(text []byte, negative bool) (value int64, ok bool) {
	const significantDigits = 19 // of the largest int64
	var magnitude uint64
	var count, zeros, power int // digits kept; zeros since; power of ten of the last digit read
	i, point := 0, false
	for ; i < len(text); i++ {
		c := text[i]
		if c == '.' && !point && i > 0 {
			point = true
			continue
		}
		if !isDigit(c) {
			break
		}
		if point {
			power--
		}
		if zeros++; c == '0' {
			continue
		}
		if magnitude == 0 {
			zeros = 1
		}
		for ; zeros > 1 && count < significantDigits; zeros-- {
			magnitude, count = magnitude*10, count+1
		}
		if count+zeros > significantDigits {
			return 0, false
		}
		magnitude, count, zeros = magnitude*10+uint64(c-'0'), count+1, 0
	}
	if i == 0 || text[i-1] == '.' {
		return 0, false
	}
	exponent, ok := parseExponent(text[i:])
	if !ok {
		return 0, false
	}
	if magnitude == 0 {
		return 0, true
	}
	return scale(magnitude, exponent+power+zeros, negative)
}

// maxExponent is where parseExponent stops counting: far beyond what any page
// could hold digits for, and far from overflowing.
const maxExponent = math.MaxInt32

// parseExponent reads nothing, or e[sign]digits.
func parseExponent(text []byte) (exponent int, ok bool) {
	if len(text) == 0 {
		return 0, true
	}
	if text[0]|0x20 != 'e' {
		return 0, false
	}
	digits, negative := cutSign(text[1:])
	if len(digits) == 0 {
		return 0, false
	}
	for _, c := range digits {
		if !isDigit(c) {
			return 0, false
		}
		exponent = min(exponent*10+int(c-'0'), maxExponent)
	}
	if negative {
		exponent = -exponent
	}
	return exponent, true
}

// scale returns magnitude times ten to the power, if that is an int64.
func scale(magnitude uint64, power int, negative bool) (int64, bool) {
	if power < 0 {
		return 0, false // the last digit is not zero: a fraction
	}
	limit := uint64(math.MaxInt64)
	if negative {
		limit++
	}
	for ; power > 0; power-- {
		if magnitude > limit/10 {
			return 0, false
		}
		magnitude *= 10
	}
	if magnitude > limit {
		return 0, false
	}
	if negative {
		return -int64(magnitude), true
	}
	return int64(magnitude), true
}

// parseBoolean reads true, false, 1 and 0, in any case.
func parseBoolean(text []byte) (value, ok bool) {
	switch {
	case equalFold("true", text), string(text) == "1":
		return true, true
	case equalFold("false", text), string(text) == "0":
		return false, true
	}
	return false, false
}

// parseTime reads YYYY-MM-DDTHH:MM:SS with an optional fraction and an optional
// zone (Z, +HH:MM, +HHMM or +HH); without a zone it is UTC. A blank may stand
// for the T. exact is false if the fraction holds more than milliseconds; those
// are cut off.
func parseTime(text []byte) (millis int64, exact, ok bool) {
	if len(text) < 19 || text[4] != '-' || text[7] != '-' || text[13] != ':' || text[16] != ':' {
		return 0, false, false
	}
	if c := text[10]; c != 'T' && c != 't' && c != ' ' {
		return 0, false, false
	}
	century, ok0 := twoDigits(text, 0)
	yearOfCentury, ok1 := twoDigits(text, 2)
	month, ok2 := twoDigits(text, 5)
	day, ok3 := twoDigits(text, 8)
	hour, ok4 := twoDigits(text, 11)
	minute, ok5 := twoDigits(text, 14)
	second, ok6 := twoDigits(text, 17)
	if !(ok0 && ok1 && ok2 && ok3 && ok4 && ok5 && ok6) {
		return 0, false, false
	}
	year := century*100 + yearOfCentury
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 59 {
		return 0, false, false
	}
	fraction, exact, rest, ok := parseFraction(text[19:])
	if !ok {
		return 0, false, false
	}
	offsetMinutes, ok := parseZone(rest)
	if !ok {
		return 0, false, false
	}
	minutes := (int64(daysSinceEpoch(year, month, day))*24+int64(hour))*60 + int64(minute-offsetMinutes)
	return (minutes*60+int64(second))*1000 + int64(fraction), exact, true
}

// twoDigits reads text[i:i+2].
func twoDigits(text []byte, i int) (int, bool) {
	high, low := text[i]-'0', text[i+1]-'0'
	return int(high)*10 + int(low), high <= 9 && low <= 9
}

// parseFraction reads an optional fraction of a second.
func parseFraction(text []byte) (millis int, exact bool, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '.' {
		return 0, true, text, true
	}
	exact = true
	unit := 100
	i := 1
	for ; i < len(text) && isDigit(text[i]); i++ {
		millis += int(text[i]-'0') * unit
		exact = exact && (unit > 0 || text[i] == '0')
		unit /= 10
	}
	return millis, exact, text[i:], i > 1
}

// parseZone reads an optional zone, as minutes to the east of UTC.
func parseZone(text []byte) (offsetMinutes int, ok bool) {
	switch len(text) {
	case 0:
		return 0, true
	case 1:
		return 0, text[0]|0x20 == 'z'
	case 3, 5, 6:
	default:
		return 0, false
	}
	digits, negative := cutSign(text)
	if len(digits) == len(text) {
		return 0, false
	}
	hours, ok := twoDigits(digits, 0)
	if !ok || hours > 23 {
		return 0, false
	}
	minutes := 0
	if len(digits) > 2 {
		if len(digits) == 5 && digits[2] != ':' {
			return 0, false
		}
		if minutes, ok = twoDigits(digits, len(digits)-2); !ok || minutes > 59 {
			return 0, false
		}
	}
	if negative {
		return -hours*60 - minutes, true
	}
	return hours*60 + minutes, true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSinceEpoch counts the days from 1970-01-01 in the Gregorian calendar: see
// days_from_civil in Hinnant's chrono-Compatible Low-Level Date Algorithms. A
// year begins in March here, so that the leap day is its last.
func daysSinceEpoch(year, month, day int) int {
	if month <= 2 {
		year--
		month += 12
	}
	yearBase := year + 400 // never negative, so that divisions round down
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	return yearBase*365 + yearBase/4 - yearBase/100 + yearBase/400 + dayOfYear - 719468 - 146097
}
