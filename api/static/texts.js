// The texts that scripts show: English here, in the language of the page where that has another one for it.
const element = document.querySelector('script[type="application/json"][data-texts]');
const texts = JSON.parse(element?.textContent || "{}");

const filled = (text, values) => text.replace(/%\((\w+)\)s|%%/g, (whole, name) => name ? values[name] : "%");

export const _ = (english, values = {}) => filled(texts[english]?.[0] ?? english, values);

// The text for so many: a language has as many of them as it has plural forms, in the order of the standard.
export const ngettext = (singular, plural, num, values = {}) => {
  const rules = new Intl.PluralRules(document.documentElement.lang);
  const { pluralCategories } = rules.resolvedOptions();
  const said = texts[singular]?.[pluralCategories.indexOf(rules.select(num))] ?? (num === 1 ? singular : plural);
  return filled(said, { num, ...values });
};
